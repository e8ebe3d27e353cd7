//! Generates customers from a seed.

use super::customer::{Customer, Module};
use super::incidents::SCENARIO_PERIOD;
pub(crate) use super::incidents::SPECIAL_CUSTOMERS;
use super::rules::Rules;
use super::run::{Run, status};

mod fleet;
mod hostile;

const HOUR: u32 = 3600;
const DAY: u32 = 24 * HOUR;

const MICROSOFT_365: u16 = 7;
const MICROSOFT_365_SCAN: u16 = 0;
const GOOGLE: u16 = 11;
const GOOGLE_SCAN: u16 = 10;
const AZURE: u16 = 12;
const SALESFORCE: u16 = 15;
const DYNAMICS: u16 = 16;

/// Module of Salesforce backups, which is missing from the reference.
const SALESFORCE_BACKUP: u16 = 301;

/// Returns the customer with this index. A customer with a `joined` time has no scheduled runs before that time.
pub(crate) fn customer(rules: &Rules, index: usize, joined: Option<i64>) -> Customer {
    if rules.hostile {
        hostile::customer(rules, index, joined)
    } else {
        fleet::customer(rules, index, joined)
    }
}

/// Returns the job-list rows of object scans, for the services that a customer has.
fn scans(has: impl Fn(u16) -> bool, has_exceptions: bool) -> Vec<Module> {
    let status = if has_exceptions {
        status::FINISHED_WITH_EXCEPTION
    } else {
        status::FINISHED
    };
    [(MICROSOFT_365_SCAN, MICROSOFT_365), (GOOGLE_SCAN, GOOGLE)]
        .into_iter()
        .filter(|(_, service)| has(*service))
        .map(|(scan, _)| Module::fixed(scan, 0, Run::scan(status)))
        .collect()
}

/// Returns the prefix of a module's job ids.
fn id_prefix(module: u16) -> &'static str {
    match module {
        303 | 307 => "EIB",
        304 => "OIB",
        306 | 360 => "FB",
        308 => "TIB",
        311 => "PAUIB",
        312 => "PAPIB",
        402 => "YIB",
        501 => "GBG",
        502 => "GBCA",
        503 => "GBCO",
        504 => "GBD",
        505 => "GBSD",
        507 => "GBCH",
        550 | 551 => "DCIB",
        _ => "IB",
    }
}
