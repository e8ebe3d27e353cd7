//! The page at `/`: the banner, the customers (worst first), and a collapsed section about the exporter.

use std::collections::BTreeSet;

use maud::{Markup, html};

use super::banner::{banner, count_of_known};
use super::customer::{chips, path_of};
use super::exporter::exporter;
use super::query::PageQuery;
use super::words::{attributes_of, capitalize, count, counted, organization_name, sanitize, time};
use super::{CONNECTION_LOST, Page, ROOT, as_of, layout, modules, pause};
use crate::domain::{Attributes, ModuleHealth, ModuleState, Timestamp};
use crate::http::Site;
use crate::status::{CustomerDetail, CustomerHealth, CustomerList, Summary};
use crate::store::State;

/// Number of customers per page.
const PAGE_SIZE: usize = 25;

/// Maximum number of visible modules per customer.
const VISIBLE_MODULES: usize = 3;

/// Returns the page at `/`.
pub(in crate::http) fn front(site: &Site, query: &PageQuery) -> Page {
    let summary = site.status.summary();
    let matching = summary.customers.with_attributes(&query.attributes);
    let found = matching.find(&query.text, query.health);
    let pages = found.len().div_ceil(PAGE_SIZE).max(1);
    let query = PageQuery {
        page: query.page.min(pages),
        ..query.clone()
    };
    let rows = found.iter().skip((query.page - 1) * PAGE_SIZE).take(PAGE_SIZE);
    let details: Vec<CustomerDetail> = rows.filter_map(|row| summary.detail(&row.id)).collect();
    let content = html! {
        p #lost role="status" hidden { (CONNECTION_LOST) }
        section #banner data-live aria-label="Data status" { (banner(&summary)) }
        section aria-labelledby="customers-title" {
            div.title { h2 #customers-title { "Customers" } (search(&summary.customers, &query)) }
            div #customers data-live {
                (tabs(&matching, &query))
                (customers(&details, &summary, &query))
                (pager(found.len(), pages, &query))
            }
        }
        section #exporter data-live aria-label="Exporter and collectors" { (exporter(&summary)) }
    };
    let foot = html! {
        p { (as_of(summary.now)) " " (pause(query.is_live, &query.link_live(true), &query.link_live(false))) }
        p { "Filter the metrics with " code { "?collector=NAME" } " and " code { "?customer_id=ID" } ". Both can be repeated." }
    };
    layout(site, "elements_exporter", ROOT, query.is_live, &content, &foot)
}

/// Returns the search form, with a drop-down list for each attribute that customers have or the query selects.
fn search(list: &CustomerList, query: &PageQuery) -> Markup {
    let values = list.attribute_values();
    let selected = query.attributes.each_ref().map(Option::as_deref);
    let attributes = Attributes::NAMES.into_iter().zip(values).zip(selected);
    html! {
        form.find method="get" action=(ROOT) role="search" {
            label.hidden for="q" { "Search customers by name or id" }
            input #q type="search" name="q" value=(query.text) placeholder="Search customers by name or id" maxlength="200" autocomplete="off" spellcheck="false";
            @for ((name, values), selected) in attributes {
                @if !values.is_empty() || selected.is_some() { (choice(name, &values, selected)) }
            }
            @if let Some(health) = query.health { input type="hidden" name="show" value=(health.word()); }
            @if !query.is_live { input type="hidden" name="live" value="off"; }
            button type="submit" { "Search" }
        }
    }
}

/// Returns a drop-down list of an attribute's values. A selected value is listed even if no customer has it any more.
fn choice(name: &str, values: &BTreeSet<&str>, selected: Option<&str>) -> Markup {
    let missing = selected.filter(|selected| !values.contains(selected));
    html! {
        label.hidden for=(name) { (capitalize(name)) }
        select id=(name) name=(name) {
            option value="" { "Any " (name) }
            @for value in values.iter().copied().chain(missing) {
                option value=(value) selected[selected == Some(value)] { (sanitize(value)) }
            }
        }
    }
}

/// Returns links that select customers by health. A customer is counted under every state that applies to it.
fn tabs(list: &CustomerList, query: &PageQuery) -> Markup {
    let tab = |health: Option<CustomerHealth>, name: &str, customers: &str| {
        let current = (query.health == health).then_some("true");
        html! {
            li { a href=(query.link_to(health, 1)) aria-current=[current] { (capitalize(name)) " " (customers) } }
        }
    };
    let customers = |health: CustomerHealth| match health {
        CustomerHealth::Overdue | CustomerHealth::Failing => {
            count_of_known(list.count(health), list.known(), list.len())
        }
        health => count(list.count(health)),
    };
    // Two tabs are shown only if they contain customers or are selected. Both are usually empty, because few partners
    // collect signs of ransomware, and most customers are assessed.
    let is_rare = |health| matches!(health, CustomerHealth::Ransomware | CustomerHealth::NotAssessed);
    let is_offered = |health| !is_rare(health) || list.count(health) > 0 || query.health == Some(health);
    html! {
        ul.tabs aria-label="Customers by health" {
            (tab(None, "all", &count(list.len())))
            @for health in CustomerHealth::ALL.into_iter().filter(|health| is_offered(*health)) {
                (tab(Some(health), health.word(), &customers(health)))
            }
        }
    }
}

fn customers(details: &[CustomerDetail], summary: &Summary, query: &PageQuery) -> Markup {
    if details.is_empty() {
        let has_attributes = query.attributes.iter().any(Option::is_some);
        let is_filtered = !query.text.is_empty() || query.health.is_some() || has_attributes;
        let words = if is_filtered {
            "No customers match."
        } else {
            "No customers known yet."
        };
        return html! { p.card.empty { (words) } };
    }
    html! {
        ol.customers.card {
            @for detail in details {
                @let row = &detail.row;
                li {
                    div.who {
                        h3 { a href=(path_of(&row.id)) { (organization_name(&row.organization)) } }
                        small { code { (sanitize(row.id.as_str())) } }
                        @if !row.attributes.is_empty() { small { (attributes_of(&row.attributes)) } }
                        div.chips { (chips(row)) }
                    }
                    div.what { (modules_of(detail, summary.now)) @if !summary.is_unreachable { (errors_of(detail, summary.now)) } }
                }
            }
        }
    }
}

/// Returns the modules of a customer, worst first. Up to [`VISIBLE_MODULES`] modules that need attention are visible,
/// or the first module if none needs attention. The others are in a collapsed section.
fn modules_of(detail: &CustomerDetail, now: Timestamp) -> Markup {
    let needs_attention = |module: &&ModuleHealth| module.state(detail.row.as_of) < ModuleState::Ok;
    let urgent = detail.modules.iter().take_while(needs_attention).count();
    let visible_count = urgent.clamp(1, VISIBLE_MODULES).min(detail.modules.len());
    let (visible, rest) = detail.modules.split_at(visible_count);
    html! {
        @if detail.modules.is_empty() { p.none { "No modules listed." } }
        @else { (modules::brief_table(visible, &detail.row, now)) }
        @if !rest.is_empty() {
            details data-key=(detail.row.id.as_str()) {
                summary data-key=(format!("more {}", detail.row.id)) { (counted(rest.len(), "more module", "more modules")) }
                (modules::brief_table(rest, &detail.row, now))
            }
        }
    }
}

/// Returns the errors of the customer's latest polls. Errors of bulk polls are omitted.
fn errors_of(detail: &CustomerDetail, now: Timestamp) -> Markup {
    let own = detail.sources.iter().filter(|source| !source.poll.is_for_all);
    html! {
        @for source in own {
            @if let Some(error) = &source.poll.error {
                p.error { b { "Last error " } (sanitize(&error.text)) ", " (time(error.at, now)) }
            } @else if matches!(source.poll.state, State::Failed | State::Forbidden) {
                p.error { b { "Last error " } (source.name) ": unknown, because it occurred before the restart" }
            }
        }
    }
}

fn pager(found: usize, pages: usize, query: &PageQuery) -> Markup {
    let link = |page: usize, name: &str| {
        let is_reachable = page >= 1 && page <= pages && page != query.page;
        html! {
            @if is_reachable { a href=(query.link_to(query.health, page)) { (name) } }
            @else { span.none { (name) } }
        }
    };
    html! {
        nav.pages aria-label="Customer list pages" {
            @if pages > 1 {
                (link(1, "First"))
                (link(query.page.saturating_sub(1), "Previous"))
                span { "Page " (count(query.page)) " of " (count(pages)) }
                (link(query.page + 1, "Next"))
                (link(pages, "Last"))
            }
            span.soft { (counted(found, "customer", "customers")) }
        }
    }
}
