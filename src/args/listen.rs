//! Parses listen addresses.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// A listen address: `HOST:PORT`, with an IPv6 address in brackets, or `:PORT` for all addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A port on all addresses of the machine.
    All(u16),
    /// A port on one address.
    Socket(SocketAddr),
    /// A port on the address that a host name resolves to.
    Named(String, u16),
}

impl ListenAddress {
    /// Returns the addresses to try in turn, as `HOST:PORT`, until one can be bound. For `:PORT`, the first covers both
    /// address families, and the second covers only IPv4, for machines without IPv6.
    pub fn candidates(&self) -> Vec<String> {
        match self {
            Self::All(port) => vec![format!("[::]:{port}"), format!("0.0.0.0:{port}")],
            Self::Socket(address) => vec![address.to_string()],
            Self::Named(name, port) => vec![format!("{name}:{port}")],
        }
    }
}

/// Error for text that is not a listen address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST:PORT, such as 127.0.0.1:10027, [::1]:10027, localhost:10027 or :10027")]
pub struct InvalidListenAddress;

impl FromStr for ListenAddress {
    type Err = InvalidListenAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Socket(address));
        }
        let (host, port) = text.rsplit_once(':').ok_or(InvalidListenAddress)?;
        let port = port.parse().map_err(|_| InvalidListenAddress)?;
        let is_name = host
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_'));
        // A host whose last label is numeric is a mistyped IPv4 address that a resolver might accept.
        let is_numeric = host
            .rsplit('.')
            .next()
            .is_some_and(|label| label.chars().all(|character| character.is_ascii_digit()));
        match host {
            "" => Ok(Self::All(port)),
            name if is_name && !is_numeric => Ok(Self::Named(name.to_owned(), port)),
            _ => Err(InvalidListenAddress),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(port) => write!(formatter, ":{port}"),
            Self::Socket(address) => address.fmt(formatter),
            Self::Named(name, port) => write!(formatter, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses_are_parsed_or_rejected() {
        for (text, candidates) in [
            (":10027", vec!["[::]:10027", "0.0.0.0:10027"]),
            ("127.0.0.1:10027", vec!["127.0.0.1:10027"]),
            ("0.0.0.0:10027", vec!["0.0.0.0:10027"]),
            ("[::1]:0", vec!["[::1]:0"]),
            ("localhost:9000", vec!["localhost:9000"]),
        ] {
            let address: ListenAddress = text.parse().unwrap();
            assert_eq!(address.candidates(), candidates);
            assert_eq!(address.to_string(), text);
        }
        for text in [
            "",
            ":",
            "10027",
            "localhost",
            "localhost:",
            ":65536",
            "::1:9000",
            "[::1]",
            "a/b:1",
            "127.0.0:1",
            "300.0.0.1:1",
        ] {
            assert_eq!(text.parse::<ListenAddress>(), Err(InvalidListenAddress), "{text}");
        }
    }
}
