//! Renders the bundled runbooks from Markdown to HTML.

use std::borrow::Cow;

use maud::{Markup, PreEscaped, html};
use pulldown_cmark::{CowStr, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

use crate::assets;

/// A heading in the runbooks.
struct Heading {
    level: HeadingLevel,
    anchor: String,
    text: String,
}

/// Returns the runbooks, preceded by a table of contents.
pub(super) fn runbooks() -> Markup {
    let (html, headings) = render_markdown(assets::RUNBOOKS);
    let chapters = headings
        .iter()
        .enumerate()
        .filter(|(_, heading)| heading.level == HeadingLevel::H2);
    html! {
        nav.card.contents aria-label="Contents" {
            dl {
                @for (index, chapter) in chapters {
                    dt { (link_to(chapter)) }
                    dd {
                        ul {
                            @for alert in headings.iter().skip(index + 1).take_while(|heading| heading.level > HeadingLevel::H2) {
                                li { (link_to(alert)) }
                            }
                        }
                    }
                }
            }
        }
        div.card.text { (PreEscaped(html)) }
    }
}

fn link_to(heading: &Heading) -> Markup {
    html! { a href=(format!("#{}", heading.anchor)) { (heading.text) } }
}

/// Renders Markdown to HTML, and also returns the headings. Headings have anchors, to which the alerts link. Links that
/// leave the page are removed, because they refer to files in the repository, which the exporter does not serve.
fn render_markdown(markdown: &str) -> (String, Vec<Heading>) {
    let mut events: Vec<Event<'_>> = Vec::new();
    let mut headings = Vec::new();
    let mut heading = None;
    let mut is_removed_link = false;
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Heading { level, .. }) => {
                heading = Some((events.len(), level));
                events.push(event);
            }
            Event::End(TagEnd::Heading(_)) => {
                if let Some((from, level)) = heading.take() {
                    headings.push(set_anchor(&mut events, from, level));
                }
                events.push(event);
            }
            Event::Start(Tag::Link { ref dest_url, .. }) if !dest_url.starts_with('#') => is_removed_link = true,
            Event::End(TagEnd::Link) if is_removed_link => is_removed_link = false,
            // Each part of a runbook begins in bold and becomes a separate paragraph.
            Event::Start(Tag::Strong) if matches!(events.last(), Some(Event::SoftBreak)) => {
                events.pop();
                events.extend([Event::End(TagEnd::Paragraph), Event::Start(Tag::Paragraph), event]);
            }
            event => events.push(event),
        }
    }
    let mut text = String::with_capacity(2 * markdown.len());
    pulldown_cmark::html::push_html(&mut text, events.into_iter());
    (text, headings)
}

/// Sets the anchor of the heading that begins at `from`, in the form that code hosting sites use.
fn set_anchor(events: &mut [Event<'_>], from: usize, level: HeadingLevel) -> Heading {
    let words = events.iter().skip(from).filter_map(|event| match event {
        Event::Text(text) | Event::Code(text) => Some(Cow::from(text.as_ref())),
        _ => None,
    });
    let text: String = words.collect();
    let lower = text.to_lowercase().replace(' ', "-");
    let anchor: String = lower
        .chars()
        .filter(|character| character.is_alphanumeric() || matches!(character, '-' | '_'))
        .collect();
    if let Some(Event::Start(Tag::Heading { id, .. })) = events.get_mut(from) {
        *id = Some(CowStr::from(anchor.clone()));
    }
    Heading { level, anchor, text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runbooks_have_anchors_and_no_broken_links() {
        let html = runbooks().into_string();
        assert!(
            html.contains("<h3 id=\"elementsapidown\">ElementsApiDown</h3>"),
            "{html}"
        );
        assert!(html.contains("<li><a href=\"#elementsapidown\">ElementsApiDown</a></li>"));
        assert!(html.contains("<dt><a href=\"#backups\">Backups</a></dt>"));
        assert!(html.contains("<a href=\"#elementsauthfailing\">"));
        assert!(!html.contains("href=\"..") && !html.contains("<script"));
    }

    #[test]
    fn parts_of_a_runbook_have_separate_paragraphs() {
        let (html, _) = render_markdown(assets::RUNBOOKS);
        for part in ["Means", "Real?", "Do", "Customers"] {
            let lines = assets::RUNBOOKS.matches(&format!("\n**{part}**")).count();
            let paragraphs = html.matches(&format!("<p><strong>{part}</strong>")).count();
            assert!(lines > 20 && paragraphs == lines, "{part}: {paragraphs} of {lines}");
        }
    }
}
