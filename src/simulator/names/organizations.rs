//! Fictitious organizations for a realistic fleet.

/// Names and countries, in the order of the customers. Three names are not in Latin script.
const ORGANIZATIONS: &[(&str, &str)] = &[
    ("Harbour & Finch Solicitors", "United Kingdom"),
    ("Veldkamp Logistics B.V.", "Netherlands"),
    ("Lindqvist Bygg AB", "Sweden"),
    ("Brightwater Dental Group", "United Kingdom"),
    ("Weber Maschinenbau GmbH", "Germany"),
    ("株式会社青葉精機", "Japan"),
    ("Cabinet Morel & Associés", "France"),
    ("Northgate Housing Association", "United Kingdom"),
    ("De Groene Tuin Zorggroep", "Netherlands"),
    ("Kestrel Robotics Ltd", "United Kingdom"),
    ("Stichting Het Baken", "Netherlands"),
    ("Oakfield Grammar School", "United Kingdom"),
    ("Tanaka & Bell Architects", "United States"),
    ("Silverlake Credit Union", "United States"),
    ("Bakkerij Van Houten", "Netherlands"),
    ("Praxisgemeinschaft am Stadtpark", "Germany"),
    ("Αιγαίο Ναυτιλιακή Α.Ε.", "Greece"),
    ("Prairie Wind Energy Inc.", "United States"),
    ("Møller & Krogh Revision", "Denmark"),
    ("Costa Verde Hotels", "Portugal"),
    ("Riverside Veterinary Clinic", "United Kingdom"),
    ("Gemeente Oosterwolde", "Netherlands"),
    ("Alpenblick Hotels AG", "Switzerland"),
    ("Summit Outdoor Supply Co.", "United States"),
    ("Fondazione Teatro Nuovo", "Italy"),
    ("Fairhaven Insurance Brokers", "United Kingdom"),
    ("Bäckerei Sonnenschein KG", "Germany"),
    ("Lakeshore Pediatrics", "United States"),
    ("Van der Meer Notarissen", "Netherlands"),
    ("Castleton Wealth Management", "United Kingdom"),
    ("Българска роза АД", "Bulgaria"),
    ("Aurora Fisk AS", "Norway"),
    ("Meridian Freight Forwarding", "United States"),
    ("Zahnzentrum Elbufer", "Germany"),
    ("Les Vergers du Rhône", "France"),
    ("Holloway Engineering Consultants", "United Kingdom"),
    ("Puget Timber Products", "United States"),
    ("Brouwerij De Zwaan", "Netherlands"),
    ("Ridgeway Primary Academy Trust", "United Kingdom"),
    ("Hartmann Steuerberatung", "Germany"),
    ("Blue Heron Publishing", "United States"),
    ("Sólheimar Travel ehf.", "Iceland"),
    ("Dunmore Castle Estates", "Ireland"),
    ("Zorgcentrum De Linde", "Netherlands"),
    ("Cedar Valley Farm Bureau", "United States"),
    ("Kancelaria Nowak i Wspólnicy", "Poland"),
    ("Wellington Street Surgery", "United Kingdom"),
    ("Autohaus Brenner", "Germany"),
    ("Mistral Yachting", "France"),
    ("Granite Peak Construction", "United States"),
    ("Jansen Installatietechniek", "Netherlands"),
    ("Thistle & Rye Distillers", "United Kingdom"),
    ("Ferretería Hermanos Ruiz", "Spain"),
    ("Bayview Charter Schools", "United States"),
    ("Klinik am Rosengarten", "Germany"),
    ("Foxglove Interiors", "United Kingdom"),
    ("Woningstichting Maasland", "Netherlands"),
    ("Redwood Community Theatre", "United States"),
    ("Pekka Laine Oy", "Finland"),
    ("Ashdown Forest Nurseries", "United Kingdom"),
    ("Spedition Kühn & Partner", "Germany"),
    ("Clearwater Hydrology LLC", "United States"),
    ("Ateliers Beaulieu", "Belgium"),
    ("Tidewater Marine Surveyors", "United Kingdom"),
    ("Museum De Oude Haven", "Netherlands"),
    ("Ironbridge Fabrication", "United Kingdom"),
    ("Sonora Solar Partners", "United States"),
    ("Vinarstvo Kovač d.o.o.", "Slovenia"),
    ("Elmwood Funeral Directors", "United Kingdom"),
    ("Drukkerij Van Leeuwen", "Netherlands"),
    ("Bergmann Feinwerktechnik", "Germany"),
    ("Coral Bay Resorts", "Australia"),
    ("Hudson & Pike Auctioneers", "United States"),
    ("St Brigid's Hospice", "Ireland"),
    ("Rotterdamse Havenbouw N.V.", "Netherlands"),
];

/// First parts of generated names.
const PLACES: &[&str] = &[
    "Amberley",
    "Birchwood",
    "Calder",
    "Dovecote",
    "Eastbourne Road",
    "Fernhill",
    "Glenmore",
    "Hazelbrook",
    "Inverness Street",
    "Juniper",
    "Kingsmead",
    "Larkspur",
    "Marlowe",
    "Nettleton",
    "Orchard Lane",
    "Pinecrest",
    "Quayside",
    "Rosewood",
    "Stonebridge",
    "Thornbury",
    "Underhill",
    "Violet Hill",
    "Westmere",
    "Yarrow",
    "Zephyr",
];
/// Last parts of generated names.
const TRADES: &[&str] = &[
    "Accountants",
    "Builders",
    "Care Homes",
    "Dental Practice",
    "Electrical",
    "Foods",
    "Garden Centres",
    "Hotels",
    "Insurance",
    "Joinery",
    "Kitchens",
    "Law",
    "Motors",
    "Nurseries",
    "Opticians",
    "Packaging",
    "Recruitment",
    "School",
    "Transport",
    "Utilities",
    "Veterinary Clinic",
    "Wines",
];

/// Returns the name and country of the customer with this index.
pub(crate) fn organization(index: usize) -> (String, &'static str) {
    if let Some((name, country)) = ORGANIZATIONS.get(index) {
        return ((*name).to_owned(), country);
    }
    let beyond = index.saturating_sub(ORGANIZATIONS.len());
    let (place, trade) = (pick(PLACES, beyond), pick(TRADES, beyond));
    // The lengths of the lists are coprime, so every pair occurs before any pair is repeated.
    let name = match beyond.checked_div(PLACES.len().saturating_mul(TRADES.len())) {
        None | Some(0) => format!("{place} {trade}"),
        Some(again) => format!("{place} {trade} {}", again.saturating_add(1)),
    };
    (name, "United Kingdom")
}

fn pick(list: &[&'static str], nth: usize) -> &'static str {
    nth.checked_rem(list.len())
        .and_then(|at| list.get(at).copied())
        .unwrap_or_default()
}

/// Returns the part of a domain that stands for the organization.
pub(crate) fn domain_word(organization: &str, index: usize) -> String {
    let word: String = organization
        .split_whitespace()
        .take(2)
        .flat_map(str::chars)
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    if word.len() < 3 { format!("tenant{index}") } else { word }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_three_are_not_latin() {
        let names: Vec<String> = (0..1500).map(|index| organization(index).0).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        // The Latin letters in these names, including those with diacritics, are below U+0250.
        let is_latin = |name: &&String| name.chars().all(|letter| u32::from(letter) < 0x250);
        assert_eq!(names.iter().filter(|name| !is_latin(name)).count(), 3);
    }

    #[test]
    fn domains_are_ascii() {
        assert_eq!(domain_word("Harbour & Finch Solicitors", 0), "harbour");
        assert_eq!(domain_word("Weber Maschinenbau GmbH", 4), "webermaschinenbau");
        assert_eq!(domain_word("株式会社青葉精機", 5), "tenant5");
    }
}
