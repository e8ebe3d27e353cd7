//! The page at `/`: whether the data is true, how the collectors do, and the customers, worst first.

use std::time::{Duration, SystemTime};

use axum::http::StatusCode;
use maud::{Markup, html};
use url::form_urlencoded;

use super::customer::{modules, path_of};
use super::words::{about, count, counted, span, time, time_or, told, whole};
use super::{Depth, Frame, Page, as_of, pause};
use crate::collector::JOBS;
use crate::domain::{CustomerId, Timestamp};
use crate::http::Site;
use crate::status::{Census, Citizen, CollectorSummary, Concern, Portrait, Summary};
use crate::store::State;

/// Customers on one page: as many as are read in a minute or two.
const PAGE_SIZE: usize = 25;

/// Modules of a customer that are in sight; the rest is a click away. They stand worst first.
const MODULES_IN_SIGHT: usize = 3;

/// How long before its end a credential is worth a word. Renewing one takes an approval in many houses.
const CREDENTIAL_WARNING: Duration = Duration::from_secs(21 * 24 * 3600);

/// A lag below this is only that of the loop, which turns once a second.
const WORTH_SAYING: Duration = Duration::from_secs(1);

/// A poll later than this part of its interval is worth a colour.
const LATE_PART: f64 = 0.5;

/// What the query of a page asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Wanted {
    text: String,
    concern: Option<Concern>,
    /// From 1.
    page: usize,
    live: bool,
}

impl Wanted {
    /// Reads a query. What it says besides is passed over: a page always has an answer.
    pub(in crate::http) fn parse(query: Option<&str>) -> Self {
        let mut wanted = Self {
            text: String::new(),
            concern: None,
            page: 1,
            live: true,
        };
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match name.as_ref() {
                "q" => wanted.text = value.trim().to_owned(),
                "show" => wanted.concern = Concern::ALL.into_iter().find(|concern| word(*concern) == value),
                "page" => wanted.page = value.parse().unwrap_or(1).max(1),
                "live" => wanted.live = value != "off",
                _ => {}
            }
        }
        wanted
    }

    /// Whether the page is to renew itself.
    pub(super) fn is_live(&self) -> bool {
        self.live
    }

    /// The link to the page that this asks for.
    fn link(&self) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        if !self.text.is_empty() {
            query.append_pair("q", &self.text);
        }
        if let Some(concern) = self.concern {
            query.append_pair("show", word(concern));
        }
        if self.page > 1 {
            query.append_pair("page", &self.page.to_string());
        }
        if !self.live {
            query.append_pair("live", "off");
        }
        match query.finish() {
            query if query.is_empty() => Depth::Root.root().to_owned(),
            query => format!("?{query}"),
        }
    }

    fn with(&self, concern: Option<Concern>, page: usize) -> Self {
        Self {
            concern,
            page,
            ..self.clone()
        }
    }
}

/// How good or bad something is; also the class that colours it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Warn,
    Bad,
    Idle,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Idle => "idle",
        }
    }
}

/// The page at `/`.
pub(in crate::http) fn front(site: &Site, wanted: &Wanted) -> Page {
    let summary = site.status.summary();
    let found = summary.census.find(&wanted.text, wanted.concern);
    let pages = found.len().div_ceil(PAGE_SIZE).max(1);
    let wanted = Wanted {
        page: wanted.page.min(pages),
        ..wanted.clone()
    };
    let shown: Vec<&Citizen> = found
        .iter()
        .skip((wanted.page - 1) * PAGE_SIZE)
        .take(PAGE_SIZE)
        .copied()
        .collect();
    let ids: Vec<CustomerId> = shown.iter().map(|citizen| citizen.id.clone()).collect();
    let portraits = site.status.portraits(&ids, summary.now);
    let content = html! {
        p #lost role="status" hidden { "The exporter does not answer any more. What is shown here is from before." }
        section #verdict data-live aria-label="Is the data true?" { (verdict(&summary)) (facts(&summary)) }
        section #collectors data-live aria-labelledby="collectors-title" {
            h2 #collectors-title { "Collectors" }
            (collectors(&summary))
            p.soft {
                "Requests and errors are counted by what was asked for: where two collectors ask for the same, they stand with the \
                 first. A poll that fails before it can ask is an error without a request."
            }
        }
        section aria-labelledby="customers-title" {
            h2 #customers-title { "Customers" }
            (search(&wanted))
            div #customers data-live {
                (tabs(&summary.census, &wanted))
                (people(&shown, &portraits, summary.now, &wanted))
                (pager(found.len(), pages, &wanted))
            }
        }
    };
    let foot = html! {
        p {
            (as_of(summary.now)) " "
            (pause(
                wanted.live,
                &Wanted { live: true, ..wanted.clone() }.link(),
                &Wanted { live: false, ..wanted.clone() }.link(),
            ))
        }
        p { "Narrow the metrics with " code { "?collector=NAME" } " and " code { "?customer_id=ID" } ", each as often as needed." }
    };
    let frame = Frame {
        title: "elements_exporter",
        subtitle: &site.subtitle,
        telemetry_path: &site.telemetry_path,
        depth: Depth::Root,
        live: wanted.live,
    };
    frame.page(StatusCode::OK, &content, &foot)
}

/// The answer to whether the data is true, and what it stands on.
struct Verdict {
    tone: Tone,
    says: String,
    because: Vec<String>,
}

impl Verdict {
    fn of(summary: &Summary) -> Self {
        let mut because = Vec::new();
        let trouble = summary.list_trouble.as_ref().map(|trouble| {
            let ago = span(summary.now.since(trouble.at));
            format!("{} ({ago} ago).", told(&trouble.text))
        });
        let (tone, says) = if !summary.alive {
            let silence = span(summary.silence);
            because.push(format!(
                "The poll loop has not turned for {silence}. Restart the exporter."
            ));
            (Tone::Bad, "No: nothing is polled any more, and what is shown ages.")
        } else if summary.vitals.token == Some(false) {
            because.push("The newest attempt at a token failed. elements_exporter check tells more.".to_owned());
            because.extend(trouble);
            let says = match summary.census.is_empty() {
                true => "No: there has never been a token to ask with.",
                false => "Not any more: there is no token to ask with. What is shown stands and ages.",
            };
            (Tone::Bad, says)
        } else if summary.listed == Some(false) {
            because.push("The newest attempt at the list of customers failed.".to_owned());
            because.extend(trouble);
            let says = match summary.census.is_empty() {
                true => "No: the API has never told the customers.",
                false => "Not any more: the API does not tell the customers. What is shown stands and ages.",
            };
            (Tone::Bad, says)
        } else if !summary.up {
            because.push("The list of customers has not been had since the start.".to_owned());
            (Tone::Idle, "Not yet: the first answers are still to come.")
        } else {
            freshness(summary)
        };
        if !summary.census.knows_backups() && !summary.collectors.iter().any(|known| known.overview.name == JOBS) {
            because.push(format!("{JOBS}: switched off, so nothing is known of backups."));
        }
        because.extend(summary.collectors.iter().filter_map(said_of));
        because.extend(other_concerns(summary));
        Self {
            tone,
            says: says.to_owned(),
            because,
        }
    }
}

/// What is to be said where the exporter gets its answers. Green is only for what is whole: where something is not
/// collected, that everything else is fresh does not make it true.
fn freshness(summary: &Summary) -> (Tone, &'static str) {
    let collected = |collector: &&CollectorSummary| collector.overview.permitted != Some(false);
    let fresh_of = |collector: &CollectorSummary| collector.overview.customers.get(&State::Fresh).copied();
    let permitted = summary.collectors.iter().filter(collected);
    let (mut pending, mut unfresh, mut fresh, mut is_any_lost) = (0, 0, 0, false);
    for collector in permitted {
        let (here, good) = (unfresh_of(collector), fresh_of(collector).unwrap_or_default());
        pending += pending_of(collector);
        unfresh += here;
        fresh += good;
        is_any_lost |= here > 0 && good == 0;
    }
    if is_any_lost || unfresh > fresh {
        (Tone::Bad, "No: much of it is not fresh.")
    } else if unfresh > 0 {
        (Tone::Warn, "Mostly: some values are not fresh.")
    } else if !summary.census.knows_backups() {
        (Tone::Warn, "Not of backups: jobs are not collected.")
    } else if !summary.collectors.iter().all(|collector| collected(&collector)) {
        (Tone::Warn, "Not all of it: something may not be collected.")
    } else if pending > 0 {
        (Tone::Idle, "Almost: some answers are still to come.")
    } else if summary.census.is_empty() {
        (
            Tone::Warn,
            "There is nobody: no customer is listed, or the filters leave all out.",
        )
    } else {
        (Tone::Good, "Yes: everything is fresh.")
    }
}

/// Customers whose values are not fresh; none where all of them are for want of a permission.
fn unfresh_of(collector: &CollectorSummary) -> usize {
    if collector.overview.permitted == Some(false) {
        return 0;
    }
    let customers = &collector.overview.customers;
    let states = [State::Stale, State::Failed, State::Forbidden];
    states.iter().filter_map(|state| customers.get(state)).sum()
}

fn pending_of(collector: &CollectorSummary) -> usize {
    if collector.overview.permitted == Some(false) {
        return 0;
    }
    collector
        .overview
        .customers
        .get(&State::Pending)
        .copied()
        .unwrap_or_default()
}

/// What is to be said of a collector that is not all fresh.
fn said_of(collector: &CollectorSummary) -> Option<String> {
    let name = collector.overview.name;
    if collector.overview.permitted == Some(false) {
        return Some(format!(
            "{name}: the permission is not granted, so nothing is collected."
        ));
    }
    let parts: Vec<String> = [State::Stale, State::Failed, State::Forbidden, State::Pending]
        .into_iter()
        .filter_map(|state| {
            let customers = collector
                .overview
                .customers
                .get(&state)
                .copied()
                .filter(|customers| *customers > 0)?;
            Some(format!(
                "{} {}",
                counted(whole(customers), "customer", "customers"),
                state.label()
            ))
        })
        .collect();
    (!parts.is_empty()).then(|| format!("{name}: {}.", parts.join(", ")))
}

/// What else should be known.
fn other_concerns(summary: &Summary) -> Vec<String> {
    let mut concerns = Vec::new();
    if !summary.loaded.config {
        concerns.push(
            "The newest load of the configuration failed; the one before stays in force. The log says why.".to_owned(),
        );
    }
    if !summary.loaded.state {
        concerns.push("The state file could not be loaded at the start. The log says why.".to_owned());
    }
    let left = summary
        .vitals
        .credential_expiry
        .map(|at| Timestamp::from_unix_seconds(at).since(summary.now));
    if let Some(left) = left.filter(|left| *left < CREDENTIAL_WARNING) {
        concerns.push(match left.is_zero() {
            true => "The credential has ended: make a new one in Elements, Settings > API app registration.".to_owned(),
            false => format!(
                "The credential ends in {}: make a new one in Elements, Settings > API app registration.",
                span(left)
            ),
        });
    }
    concerns
}

fn verdict(summary: &Summary) -> Markup {
    let verdict = Verdict::of(summary);
    html! {
        div.card.verdict.{ (verdict.tone.class()) } {
            span.soft { "Is the data true?" }
            strong { (verdict.says) }
            @if !verdict.because.is_empty() {
                ul { @for reason in &verdict.because { li { (reason) } } }
            }
        }
    }
}

fn facts(summary: &Summary) -> Markup {
    let vitals = &summary.vitals;
    let counted_all = summary.counted;
    let census = &summary.census;
    let (overdue, failing) = (census.count(Concern::Overdue), census.count(Concern::Failing));
    let token = vitals
        .token_expiry
        .and_then(|at| at.duration_since(SystemTime::now()).ok());
    html! {
        dl.facts {
            div.card {
                dt { "API" }
                dd {
                    @if summary.up { b.good-text { "up" } small { "token and customer list were both had" } }
                    @else if summary.vitals.token == Some(false) { b.bad-text { "down" } small { "no token" } }
                    @else if summary.listed == Some(false) { b.bad-text { "down" } small { "no customer list" } }
                    @else { b { "not asked yet" } small { "waiting for the first answer" } }
                }
            }
            div.card {
                dt { "Customers" }
                dd {
                    b { (count(whole(census.len()))) }
                    small {
                        @if census.knows_backups() {
                            span.bad-text[overdue > 0] { (count(whole(overdue))) " overdue" } ", "
                            span.bad-text[failing > 0] { (count(whole(failing))) " failing" }
                        } @else { "their backups are not known" }
                    }
                }
            }
            div.card {
                dt { "Token" }
                dd {
                    @match token {
                        Some(left) => b { (about(left)) " left" },
                        None => b { "none" },
                    }
                    @if let Some(at) = vitals.credential_expiry {
                        small { "credential ends " (time(Timestamp::from_unix_seconds(at), summary.now)) }
                    } @else { small { "end of the credential not known" } }
                    small {
                        (counted(summary.for_tokens.requests, "request", "requests")) ", "
                        (counted(summary.for_tokens.errors, "error", "errors"))
                    }
                }
            }
            div.card {
                dt { "Rate it allows itself" }
                dd {
                    b { (format!("{:.3}", vitals.rate).trim_end_matches('0').trim_end_matches('.')) "/s" }
                    small {
                        (counted(counted_all.requests, "request", "requests")) " in all, "
                        (count(counted_all.throttled)) " throttled, "
                        (counted(counted_all.errors, "error", "errors"))
                    }
                }
            }
            div.card {
                dt { "Uptime" }
                dd {
                    b { (about(summary.uptime)) }
                    small { "version " (crate::args::VERSION) ", " (count(whole(summary.series))) " series" }
                }
            }
            div.card {
                dt { "Configuration" }
                dd {
                    @match &summary.config_file {
                        Some(file) => b { (file.file_name().unwrap_or(file.as_os_str()).to_string_lossy()) },
                        None => b { "environment" },
                    }
                    small {
                        @if let Some(file) = &summary.config_file { code { (file.display()) } ", " }
                        "read " (time(summary.loaded.config_at, summary.now))
                    }
                    @if !summary.loaded.config { small.bad-text { "the newest load failed" } }
                }
            }
        }
    }
}

fn collectors(summary: &Summary) -> Markup {
    html! {
        div.card.scroll tabindex="0" role="region" aria-labelledby="collectors-title" {
            table.grid.tight {
                thead {
                    tr {
                        th scope="col" { "Collector" }
                        th scope="col" { "Permitted" }
                        th scope="col" { "Last good round" }
                        th.number scope="col" { "Lag" }
                        th scope="col" { "Customers" }
                        @for state in State::ALL { th.number scope="col" { (capital(state.label())) } }
                        th.number scope="col" { "Requests" }
                        th.number scope="col" { "Errors" }
                    }
                }
                tbody {
                    @for collector in &summary.collectors { (collector_rows(collector, summary.now)) }
                }
            }
        }
    }
}

fn collector_rows(collector: &CollectorSummary, now: Timestamp) -> Markup {
    let overview = &collector.overview;
    let late = collector.lag >= WORTH_SAYING && collector.lag > overview.plan.interval.mul_f64(LATE_PART);
    html! {
        tr {
            th scope="row" { (overview.name) }
            td data-label="Permitted" {
                @match overview.permitted {
                    Some(true) => span.chip.good { "yes" },
                    Some(false) => span.chip.bad { "no" },
                    None => span.chip { "not known yet" },
                }
            }
            td.broad data-label="Last good round" {
                (time_or(collector.oldest, now, "not yet"))
                small {
                    @if let Some(newest) = collector.newest { "newest " (time(newest, now)) }
                    // Where no poll of a round succeeded, the round took its time all the same.
                    @if collector.newest.is_some() && collector.cycle.is_some() { ", " }
                    @if let Some(cycle) = collector.cycle { "took " (span(cycle)) }
                }
            }
            td.number.none[collector.lag < WORTH_SAYING] data-label="Lag" {
                @if collector.lag < WORTH_SAYING { "none" } @else { span.warn-text[late] { (span(collector.lag)) } }
            }
            td data-label="Customers" { (bar(overview.customers.iter().map(|(state, customers)| (*state, *customers)))) }
            @for state in State::ALL {
                @let customers = overview.customers.get(&state).copied().unwrap_or_default();
                td.number.none[customers == 0] data-label=(capital(state.label())) { (count(whole(customers))) }
            }
            td.number data-label="Requests" { (count(collector.counted.requests)) }
            td.number.none[collector.counted.errors == 0] data-label="Errors" { (count(collector.counted.errors)) }
        }
        @if let Some(trouble) = &collector.trouble {
            tr.trouble {
                td {}
                td colspan="11" { p.error { b { "Last error " } (told(&trouble.text)) ", " (time(trouble.at, now)) } }
            }
        }
    }
}

/// Customers by state as a bar; the numbers stand beside it.
fn bar(states: impl Iterator<Item = (State, usize)>) -> Markup {
    let states: Vec<(State, usize)> = states.collect();
    let all = states.iter().map(|(_, customers)| customers).sum::<usize>().max(1);
    let mut at = 0.0;
    let parts: Vec<(State, f64, f64)> = states
        .into_iter()
        .map(|(state, customers)| {
            let part = 100.0 * customers as f64 / all as f64;
            at += part;
            (state, at - part, part)
        })
        .filter(|(_, _, part)| *part > 0.0)
        .collect();
    html! {
        svg.bar viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true" {
            @for (state, at, part) in parts {
                rect class=(state.label()) x=(format!("{at:.2}")) y="0" width=(format!("{part:.2}")) height="8" {}
            }
        }
    }
}

fn search(wanted: &Wanted) -> Markup {
    html! {
        form.find method="get" action=(Depth::Root.root()) role="search" {
            label.hidden for="q" { "Search customers by name or id" }
            input #q type="search" name="q" value=(wanted.text) placeholder="Search customers by name or id" maxlength="200" autocomplete="off" spellcheck="false";
            @if let Some(concern) = wanted.concern { input type="hidden" name="show" value=(word(concern)); }
            @if !wanted.live { input type="hidden" name="live" value="off"; }
            button type="submit" { "Search" }
        }
    }
}

/// The name of a concern, in queries and chips.
fn word(concern: Concern) -> &'static str {
    match concern {
        Concern::Overdue => "overdue",
        Concern::Failing => "failing",
        Concern::Unfresh => "not fresh",
        Concern::Pending => "pending",
        Concern::Unknown => "not known",
        Concern::Fine => "fine",
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(char::to_uppercase).into_iter().flatten();
    first.chain(letters).collect()
}

fn tabs(census: &Census, wanted: &Wanted) -> Markup {
    let tab = |concern: Option<Concern>, name: &str, customers: usize| {
        let current = (wanted.concern == concern).then_some("true");
        html! {
            li {
                a href=(wanted.with(concern, 1).link()) aria-current=[current] {
                    (capital(name)) " " (count(whole(customers)))
                }
            }
        }
    };
    html! {
        ul.tabs aria-label="Customers by what is the matter" {
            (tab(None, "all", census.len()))
            @for concern in Concern::ALL { (tab(Some(concern), word(concern), census.count(concern))) }
        }
    }
}

fn people(shown: &[&Citizen], portraits: &[Portrait], now: Timestamp, wanted: &Wanted) -> Markup {
    if shown.is_empty() {
        let nothing_asked = wanted.text.is_empty() && wanted.concern.is_none();
        return html! {
            p.card.empty {
                @if nothing_asked { "No customer is known yet." } @else { "No customer fits." }
            }
        };
    }
    html! {
        ol.people.card {
            @for citizen in shown {
                @let portrait = portraits.iter().find(|portrait| portrait.dossier.id == citizen.id);
                li {
                    div.who {
                        h3 { a href=(path_of(&citizen.id)) { (called(&citizen.organization)) } }
                        small { code { (told(citizen.id.as_str())) } }
                        (chip(citizen))
                    }
                    div.what { @if let Some(portrait) = portrait { (told_of(portrait, now)) } }
                }
            }
        }
    }
}

/// The name of an organization, isolated from what stands around it, whatever direction it is written in.
pub(super) fn called(organization: &str) -> Markup {
    let name = told(organization);
    html! { bdi { @if name.trim().is_empty() { "(no name)" } @else { (name) } } }
}

fn chip(citizen: &Citizen) -> Markup {
    let (tone, says) = match citizen.concern {
        Concern::Overdue => (
            Tone::Bad,
            counted(whole(citizen.overdue), "module overdue", "modules overdue"),
        ),
        Concern::Failing => (
            Tone::Warn,
            counted(whole(citizen.failing), "module failing", "modules failing"),
        ),
        Concern::Unfresh => (Tone::Warn, "not fresh".to_owned()),
        Concern::Pending => (Tone::Idle, "pending".to_owned()),
        Concern::Unknown => (Tone::Idle, "not known".to_owned()),
        Concern::Fine => (Tone::Good, "fine".to_owned()),
    };
    html! { span.chip.{ (tone.class()) } { (says) } }
}

/// The modules of a customer, the worst in sight, and what went wrong when it was last asked about.
fn told_of(portrait: &Portrait, now: Timestamp) -> Markup {
    let in_sight = portrait.modules.len().min(MODULES_IN_SIGHT);
    let (sight, rest) = portrait.modules.split_at(in_sight);
    html! {
        @if portrait.modules.is_empty() { p.none { "No module has been listed." } }
        @else { (modules(sight, now)) }
        @if !rest.is_empty() {
            details data-key=(portrait.dossier.id.as_str()) {
                summary data-key=(format!("more {}", portrait.dossier.id)) { (counted(whole(rest.len()), "more module", "more modules")) }
                (modules(rest, now))
            }
        }
        @for answer in portrait.dossier.answers.iter().filter(|answer| !answer.of_all) {
            @if let Some(trouble) = &answer.trouble {
                p.error { b { "Last error " } (told(&trouble.text)) ", " (time(trouble.at, now)) }
            } @else if answer.state == State::Failed || answer.state == State::Forbidden {
                p.error { b { "Last error " } (answer.name) ": from before the restart" }
            }
        }
    }
}

fn pager(found: usize, pages: usize, wanted: &Wanted) -> Markup {
    let to = |page: usize, name: &str| {
        let reachable = page >= 1 && page <= pages && page != wanted.page;
        html! {
            @if reachable { a href=(wanted.with(wanted.concern, page).link()) { (name) } }
            @else { span.none { (name) } }
        }
    };
    html! {
        nav.pages aria-label="Pages of customers" {
            @if pages > 1 {
                (to(1, "First"))
                (to(wanted.page.saturating_sub(1), "Previous"))
                span { "Page " (count(whole(wanted.page))) " of " (count(whole(pages))) }
                (to(wanted.page + 1, "Next"))
                (to(pages, "Last"))
            }
            span.soft { (counted(whole(found), "customer", "customers")) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_ask_and_nonsense_is_passed_over() {
        let wanted = Wanted::parse(Some("q=a%26b+c&show=not+fresh&page=3&live=off&x=1&%ff"));
        assert_eq!(wanted.text, "a&b c");
        assert_eq!(
            (wanted.concern, wanted.page, wanted.live),
            (Some(Concern::Unfresh), 3, false)
        );
        assert_eq!(Wanted::parse(Some(wanted.link().trim_start_matches('?'))), wanted);
        for query in ["page=0", "page=-1", "page=99999999999999999999", "show=x", ""] {
            assert_eq!(Wanted::parse(Some(query)), Wanted::parse(None), "{query}");
        }
        assert_eq!(Wanted::parse(None).link(), "./");
    }
}
