//! `volume ls`, `volume rm`.

use std::io::Write;
use std::path::Path;

use wherry_bundle::Name;

use super::args::Output;
use super::show::json;
use super::table::{Table, bytes};
use super::{CliError, ask};
use crate::control::{ClientError, Request, Response, VolumeStatus};

pub(super) fn ls(socket: &Path, output: Output, out: &mut impl Write) -> Result<(), CliError> {
    let Response::Volumes(volumes) = ask(socket, &Request::Volumes)? else {
        return Err(ClientError::Unexpected.into());
    };
    if output == Output::Json {
        return json(out, &volumes);
    }
    let mut table = Table::new(&["VOLUME", "USED", "LIMIT", "STATE", "USED BY"]);
    for volume in &volumes {
        table.row(vec![
            volume.name.to_string(),
            used(volume),
            volume.bytes_max.map(bytes).unwrap_or_default(),
            state(volume).into(),
            used_by(volume),
        ]);
    }
    Ok(write!(out, "{table}")?)
}

pub(super) fn rm(socket: &Path, name: Name, out: &mut impl Write) -> Result<(), CliError> {
    let request = Request::RemoveVolume { name };
    let Response::Done = ask(socket, &request)? else {
        return Err(ClientError::Unexpected.into());
    };
    Ok(writeln!(out, "removed")?)
}

/// Of the volumes that hold too much, for `wherry status`.
pub(super) fn over_text(volume: &VolumeStatus) -> Option<String> {
    let max = volume.bytes_max.filter(|_| volume.is_over())?;
    Some(format!("{} holds {}, its claim is for {}", volume.name, used(volume), bytes(max)))
}

fn used(volume: &VolumeStatus) -> String {
    let more = if volume.is_partial { "more than " } else { "" };
    volume.bytes_used.map(|used| format!("{more}{}", bytes(used))).unwrap_or_default()
}

fn state(volume: &VolumeStatus) -> &'static str {
    match (volume.bytes_used, volume.bytes_max) {
        (None, _) => "not there",
        (Some(_), _) if volume.is_over() => "over its limit",
        (Some(_), _) if volume.is_limited => "enforced",
        (Some(_), Some(_)) => "watched",
        (Some(_), None) => "not claimed",
    }
}

fn used_by(volume: &VolumeStatus) -> String {
    let names: Vec<&str> = volume.used_by.iter().map(Name::as_str).collect();
    match (names.is_empty(), volume.bytes_max, volume.last_good) {
        (true, None, true) => "the last good generation".into(),
        _ => names.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_volume_is_like_is_said_in_words() {
        let volume = |bytes_used, bytes_max, is_limited| VolumeStatus {
            name: Name::new("data").unwrap(),
            bytes_used,
            bytes_max,
            is_limited,
            is_partial: false,
            used_by: Vec::new(),
            last_good: true,
        };
        for (used, max, is_limited, wanted) in [
            (None, Some(9), false, "not there"),
            (Some(5), Some(9), false, "watched"),
            (Some(9), Some(9), false, "watched"),
            (Some(10), Some(9), false, "over its limit"),
            (Some(10), Some(9), true, "enforced"),
            (Some(10), None, false, "not claimed"),
        ] {
            let volume = volume(used, max, is_limited);
            assert_eq!(state(&volume), wanted);
            assert_eq!(over_text(&volume).is_some(), wanted == "over its limit");
        }
        assert_eq!(used_by(&volume(None, None, false)), "the last good generation");
        let text = over_text(&volume(Some(80 << 20), Some(64 << 20), false)).unwrap();
        assert!(text.starts_with("data holds 8"), "{text}");
        let more = VolumeStatus { is_partial: true, ..volume(Some(80 << 20), None, false) };
        assert!(used(&more).starts_with("more than 8"));
    }
}
