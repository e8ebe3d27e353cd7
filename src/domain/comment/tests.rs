use proptest::prelude::*;

use super::*;

#[test]
fn names_addresses_and_ids_are_masked() {
    for (comment, masked) in [
        ("The mailbox is locked.", "The mailbox is locked."),
        (
            "Mailbox adele.vance@contoso.com (id 5c2f9a1e-9f43-4f0e-8a52-0f5b0e1d7c11) does not exist",
            "Mailbox <address> (id <id>) does not exist",
        ),
        (
            "Cannot access https://contoso.sharepoint.com/sites/hr?id=7: 403 Forbidden.",
            "Cannot access <link>: # Forbidden.",
        ),
        (
            "The site 'Board of O'Brien' can't be opened",
            "The site <name> can't be opened",
        ),
        (
            "Folder \"Salaries\" and “Böses”, «Lohn», „Gehalt“",
            "Folder <name> and <name>, <name>, <name>",
        ),
        (
            "Ordner »Lohn« und ›Gehalt‹, ”Löner” och ’Adele’",
            "Ordner <name> und <name>, <name> och <name>",
        ),
        ("Mappe‹Lohn› fehlt", "Mappe<name> fehlt"),
        ("Item'Adele Vance' is gone", "Item<name> is gone"),
        ("It can't be opened", "It can't be opened"),
        ("File HR/Salaries.xlsx and read/write", "File <link> and read/write"),
        ("Never ended \"Adele Vance is", "Never ended <name>"),
        (
            "429 Too Many Requests, retry after 120.5 s",
            "# Too Many Requests, retry after #.# s",
        ),
        (
            "AADSTS65001: no consent for contoso.onmicrosoft.com",
            "AADSTS#: no consent for <link>",
        ),
        (
            "Request id=8f14e45fceea167a5a36dedd4bea2543;user=x",
            "Request id=<id>;user=x",
        ),
        (
            "See \\\\server\\share\\Adele and /personal/adele",
            "See <link> and <link>",
        ),
        (
            "System.Net.WebException: timed out",
            "System.Net.WebException: timed out",
        ),
        ("Mail to <adele@contoso.com>,bob@contoso.com", "Mail to <address>"),
        ("  two \n lines\t", "two lines"),
        (
            "/sites/HR/Vance, Adele Miller.docx and /sites/Dr. Bob Miller.docx gone",
            "<link> and <link> gone",
        ),
        (
            "I/O error in HR Salaries/Adele Vance.docx now",
            "I/O error in HR <link> now",
        ),
        (
            "Mail of Adele Vance<adele@contoso.com> gone",
            "Mail of <name> <address> gone",
        ),
        (
            "See https://contoso-my.sharepoint.com/personal/adele/Documents/Medical Leave/Bob Miller diagnosis.docx: 423 Locked",
            "See <link>: # Locked",
        ),
        (
            "https://contoso.sharepoint.com/sites/HR Dept/Adele Vance.docx missing",
            "<link> missing",
        ),
        ("/sites/HR Salaries/Adele Vance.docx missing", "<link> missing"),
        (
            r"Open (\\server\share\My Files\x.pst), then retry",
            "Open (<link>), then retry",
        ),
        (r"C:\Users\Adele Vance\a.pst is in use", "<link> is in use"),
        (
            "Site &quot;HR&quot; and &#39;Pay&#39; of &amp;quot;Adele&amp;quot;&nbsp;gone",
            "Site <name> and <name> of <name> gone",
        ),
        (
            "‟HR‟ ＂Pay＂ ＇Adele＇ ´Bob´ 〝Eve〞 《Ann》 〈Joe〉 gone",
            "<name> <name> <name> <name> <name> <name> <name> gone",
        ),
        (
            "Can't open the user's file 'Pay' now",
            "Can't open the user's file <name> now",
        ),
        ("'Chris' Salaries' is missing", "<name> is missing"),
        (
            "'The 'new' pay' and \"A \"B\" C\" are missing",
            "<name> and <name> are missing",
        ),
        ("'A' and 'B' are missing", "<name> and <name> are missing"),
        (
            "Mail of Adele van Vance <adele@contoso.com> gone",
            "Mail of <name> <address> gone",
        ),
        ("Locked: Vance, Adele <adele@contoso.com>", "Locked: <name> <address>"),
        ("Adele Vance &lt;adele@contoso.com&gt; gone", "<name> <address> gone"),
        ("\u{feff}Cafe\u{301} \u{200b}closed", "Café closed"),
        ("\u{200b} \u{feff}", ""),
    ] {
        assert_eq!(mask_comment(comment), masked, "{comment}");
    }
}

#[test]
fn comment_is_truncated() {
    let masked = mask_comment(&"word ".repeat(100));
    assert_eq!(masked.chars().count(), MAX_COMMENT_CHARS);
    assert!(masked.ends_with('…'));
}

proptest! {
    #[test]
    fn comments_contain_no_addresses_or_numbers(comment in any::<String>()) {
        let masked = mask_comment(&comment);
        prop_assert!(masked.chars().count() <= MAX_COMMENT_CHARS);
        prop_assert!(!masked.contains('@') && !masked.chars().any(char::is_numeric), "{}", masked);
    }
}
