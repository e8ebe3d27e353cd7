//! Decrypts a PKCS#8 `ENCRYPTED PRIVATE KEY`.
//!
//! The PFX parser supports every cipher commonly used for such keys, but decrypts only keys inside an archive. The key
//! is therefore wrapped in an archive (RFC 7292, section 4) that contains nothing else.

use p12_keystore::{Pkcs12Archive, PrivateKey, error::Error};

const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
const EXPLICIT_0: u8 = 0xa0;

/// `INTEGER 3`, the version of a PFX.
const VERSION: &[u8] = &[0x02, 0x01, 0x03];
/// `OBJECT IDENTIFIER 1.2.840.113549.1.7.1`, `id-data`.
const DATA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01";
/// `OBJECT IDENTIFIER 1.2.840.113549.1.12.10.1.2`, `pkcs8ShroudedKeyBag`.
const SHROUDED_KEY_BAG: &[u8] = b"\x06\x0b\x2a\x86\x48\x86\xf7\x0d\x01\x0c\x0a\x01\x02";

/// Decrypts `encrypted`, a DER `EncryptedPrivateKeyInfo`, and returns its PKCS#8 key. Returns `None` if it contains no
/// key.
pub(super) fn decrypt(encrypted: &[u8], password: &str) -> Result<Option<PrivateKey>, Error> {
    let archive = Pkcs12Archive::from_pkcs12(&archive_of(encrypted), password)?;
    Ok(archive.keys.into_iter().next().map(|bag| bag.key))
}

fn archive_of(encrypted: &[u8]) -> Vec<u8> {
    let bag = der(SEQUENCE, &[SHROUDED_KEY_BAG, &der(EXPLICIT_0, &[encrypted])]);
    let safe = data(&der(SEQUENCE, &[&bag]));
    let authenticated_safe = data(&der(SEQUENCE, &[&safe]));
    der(SEQUENCE, &[VERSION, &authenticated_safe])
}

/// Returns a `ContentInfo` with plain data.
fn data(content: &[u8]) -> Vec<u8> {
    let octets = der(OCTET_STRING, &[content]);
    der(SEQUENCE, &[DATA, &der(EXPLICIT_0, &[&octets])])
}

/// Encodes a tag, a length and the joined parts in DER (X.690, section 10.1).
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut encoded = vec![tag];
    match u8::try_from(content.len()) {
        Ok(short @ ..0x80) => encoded.push(short),
        _ => {
            let length = content.len().to_be_bytes();
            let length = length.iter().skip_while(|&&byte| byte == 0);
            encoded.push(length.clone().fold(0x80, |count, _| count + 1));
            encoded.extend(length);
        }
    }
    encoded.extend(content);
    encoded
}

#[cfg(test)]
mod tests {
    use super::{OCTET_STRING, der};

    #[test]
    fn lengths_are_the_shortest_possible() {
        assert_eq!(der(OCTET_STRING, &[b"a", b"b"]), b"\x04\x02ab");
        let start = |length| der(OCTET_STRING, &[&vec![0; length]])[..4].to_vec();
        assert_eq!(start(0x7f), [4, 0x7f, 0, 0]);
        assert_eq!(start(0x80), [4, 0x81, 0x80, 0]);
        assert_eq!(start(0x100), [4, 0x82, 1, 0]);
    }
}
