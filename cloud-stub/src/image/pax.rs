//! PAX extended headers (POSIX.1-2017, `pax`, "pax Extended Header"): lines of
//! `LENGTH KEY=VALUE\n`, whose values may be any bytes.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// What we use of a header; keys without a meaning for an image (`atime`,
/// `comment`…) are passed over.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub path: Option<Vec<u8>>,
    pub link: Option<Vec<u8>>,
    pub size: Option<u64>,
    pub uid: Option<u64>,
    pub gid: Option<u64>,
    pub mtime: Option<i64>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    pub sparse: bool,
}

/// libarchive writes base64 without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads all records of one header.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(mut bytes: &[u8]) -> Result<Records, &'static str> {
    let mut records = Records::default();
    let mut encoded = BTreeMap::new();
    while !bytes.is_empty() {
        let (key, value, rest) = record(bytes).ok_or("has a damaged PAX header")?;
        bytes = rest;
        if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
            records.xattrs.insert(name.to_owned(), value.to_vec());
            continue;
        }
        if let Some(name) = key.strip_prefix("LIBARCHIVE.xattr.") {
            let name = percent_decoded(name).ok_or("has a damaged attribute name")?;
            let value = BASE64.decode(value).map_err(|_| "has a damaged attribute")?;
            encoded.insert(name, value);
            continue;
        }
        // An empty value takes the record back.
        let present = !value.is_empty();
        match key {
            "path" => records.path = present.then(|| value.to_vec()),
            "linkpath" => records.link = present.then(|| value.to_vec()),
            "size" => records.size = whole(value)?,
            "uid" => records.uid = whole(value)?,
            "gid" => records.gid = whole(value)?,
            "mtime" if present => records.mtime = Some(seconds(value)?),
            _ => records.sparse |= key.starts_with("GNU.sparse."),
        }
    }
    // bsdtar writes each attribute in both ways.
    for (name, value) in encoded {
        records.xattrs.entry(name).or_insert(value);
    }
    Ok(records)
}

fn record(bytes: &[u8]) -> Option<(&str, &[u8], &[u8])> {
    let space = bytes.iter().position(|&byte| byte == b' ')?;
    let length: usize = str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
    let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    let key = str::from_utf8(&record[..equals]).ok()?;
    Some((key, &record[equals + 1..], &bytes[length..]))
}

fn whole(value: &[u8]) -> Result<Option<u64>, &'static str> {
    if value.is_empty() {
        return Ok(None);
    }
    let text = str::from_utf8(value).ok();
    text.and_then(|text| text.parse().ok()).map(Some).ok_or("has a damaged number in its header")
}

/// A decimal with a fraction, rounded down: -0.5 is second -1.
fn seconds(value: &[u8]) -> Result<i64, &'static str> {
    let bad = "has a damaged time";
    let text = str::from_utf8(value).map_err(|_| bad)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(bad);
    }
    let seconds: i64 = whole.parse().map_err(|_| bad)?;
    let below = whole.starts_with('-') && fraction.bytes().any(|byte| byte != b'0');
    Ok(seconds.saturating_sub(i64::from(below)))
}

fn percent_decoded(name: &str) -> Option<String> {
    let mut out = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            let hex = str::from_utf8(tail.get(..2)?).ok()?;
            out.push(u8::from_str_radix(hex, 16).ok()?);
            rest = &tail[2..];
        } else {
            out.push(first);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &str, value: &[u8]) -> Vec<u8> {
        let body = key.len() + value.len() + 3;
        let mut length = body + 1;
        while length != body + length.to_string().len() {
            length += 1;
        }
        [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
    }

    #[test]
    fn binary_values_and_both_kinds_of_attributes_are_read() {
        let mut header = line("SCHILY.xattr.user.a", b"x\n\0=y");
        header.extend(line("LIBARCHIVE.xattr.user.a", b"AAAA"));
        header.extend(line("LIBARCHIVE.xattr.user.%62", b"AAE"));
        header.extend(line("mtime", b"-1.5"));
        header.extend(line("path", "ä/b".as_bytes()));
        header.extend(line("comment", b""));
        let records = parse(&header).unwrap();
        assert_eq!(records.xattrs["user.a"], b"x\n\0=y");
        assert_eq!(records.xattrs["user.b"], [0, 1]);
        assert_eq!(records.mtime, Some(-2));
        assert_eq!(records.path.as_deref(), Some("ä/b".as_bytes()));
        assert!(!records.sparse);
    }

    #[test]
    fn damaged_headers_are_refused() {
        for bad in
            [&b"9 path=ab"[..], b"99 path=a\n", b"path=a\n", b"0 a=b\n", b"2 a=b\n", b"7 path\n"]
        {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        for (key, value) in [("size", "-1"), ("uid", "x"), ("mtime", "1.x"), ("mtime", "--1")] {
            assert!(parse(&line(key, value.as_bytes())).is_err(), "{key} {value}");
        }
    }
}
