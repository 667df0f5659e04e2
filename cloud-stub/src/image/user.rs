//! The `User` of an image's configuration, as numbers.
//!
//! Same rules as Docker's (passwd(5), group(5)): a part that is a number is
//! an id whether or not an account has it; supplementary groups come with an
//! account only when no group was named; first match wins; lines that make no
//! sense are passed over. Pure: the caller brings the two files.

use wherry_bundle::model::User;

/// Largest id: the last number means "no change" to the kernel.
const ID_MAX: u32 = u32::MAX - 1;

/// Resolves `spec`: empty, `user`, `uid`, `user:group`, `uid:gid`…
///
/// # Errors
/// What is wrong, for a person.
pub(super) fn resolve(spec: &str, passwd: &[u8], group: &[u8]) -> Result<User, String> {
    let (user_part, group_part) = spec.split_once(':').unwrap_or((spec, ""));
    let wanted_id = id(user_part);
    let account = lines(passwd).filter_map(account).find(|account| match (user_part, wanted_id) {
        ("", _) => account.uid == 0,
        (_, Some(wanted)) => account.uid == wanted,
        (name, None) => account.name == name.as_bytes(),
    });
    let mut user = match (&account, wanted_id) {
        (Some(account), _) => {
            User { uid: account.uid, gid: account.gid, additional_gids: Vec::new() }
        }
        (None, Some(uid)) => User { uid, ..User::default() },
        (None, None) if user_part.is_empty() => User::default(),
        (None, None) => return Err(format!("user `{user_part}` is not in its /etc/passwd")),
    };
    if group_part.is_empty() {
        if let Some(account) = account {
            user.additional_gids = lines(group)
                .filter_map(entry)
                .filter(|entry| entry.members.contains(&account.name))
                .map(|entry| entry.gid)
                .collect();
            user.additional_gids.sort_unstable();
            user.additional_gids.dedup();
        }
        return Ok(user);
    }
    user.gid = match id(group_part) {
        Some(gid) => gid,
        None => lines(group)
            .filter_map(entry)
            .find(|entry| entry.name == group_part.as_bytes())
            .map(|entry| entry.gid)
            .ok_or_else(|| format!("group `{group_part}` is not in its /etc/group"))?,
    };
    Ok(user)
}

struct Account<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
}

struct Group<'a> {
    name: &'a [u8],
    gid: u32,
    members: Vec<&'a [u8]>,
}

fn lines(file: &[u8]) -> impl Iterator<Item = Vec<&[u8]>> {
    let lines = file.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
        .map(|line| line.split(|&byte| byte == b':').collect())
}

fn account(fields: Vec<&[u8]>) -> Option<Account<'_>> {
    let [name, _password, uid, gid, ..] = fields[..] else { return None };
    Some(Account { name, uid: number(uid)?, gid: number(gid)? })
}

fn entry(fields: Vec<&[u8]>) -> Option<Group<'_>> {
    let [name, _password, gid, ..] = fields[..] else { return None };
    let members = fields.get(3).copied().unwrap_or_default();
    let members = members.split(|&byte| byte == b',').filter(|name| !name.is_empty()).collect();
    Some(Group { name, gid: number(gid)?, members })
}

fn number(field: &[u8]) -> Option<u32> {
    id(str::from_utf8(field).ok()?)
}

fn id(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|&id| id <= ID_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\n\
        www-data:x:33:33::/var/www:/bin/sh\n1000:x:7:8::/:/bin/sh\nlion:x:1000:1000::/:/bin/sh\n\
        huge:x:4294967295:1::/:/bin/sh\nlion:x:1:1::/:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\ndisk:x:6:root,lion\nvideo:x:44:lion\naudio:x:29:lion,\n\
        again:x:44:lion\nwww-data:x:33:\nbad:x:y:lion";

    fn user(uid: u32, gid: u32, additional_gids: &[u32]) -> User {
        User { uid, gid, additional_gids: additional_gids.to_vec() }
    }

    #[test]
    fn names_and_numbers_as_docker_reads_them() {
        for (spec, expected) in [
            ("", user(0, 0, &[6])),
            ("root", user(0, 0, &[6])),
            ("0", user(0, 0, &[6])),
            ("www-data", user(33, 33, &[])),
            ("lion", user(1000, 1000, &[6, 29, 44])),
            ("1000", user(1000, 1000, &[6, 29, 44])),
            ("lion:video", user(1000, 44, &[])),
            ("lion:5", user(1000, 5, &[])),
            ("12345", user(12345, 0, &[])),
            ("12345:678", user(12345, 678, &[])),
            (":video", user(0, 44, &[])),
        ] {
            assert_eq!(resolve(spec, PASSWD, GROUP).unwrap(), expected, "{spec}");
        }
    }

    #[test]
    fn an_image_without_accounts_takes_numbers_only() {
        assert_eq!(resolve("", b"", b"").unwrap(), user(0, 0, &[]));
        assert_eq!(resolve("5:6", b"", b"").unwrap(), user(5, 6, &[]));
        assert!(resolve("nobody", b"", b"").unwrap_err().contains("`nobody`"));
    }

    #[test]
    fn unknown_and_impossible_ones_are_refused() {
        for bad in ["nobody", "lion:nogroup", "-1", "huge", "4294967295", "0:4294967295", "+5"] {
            assert!(resolve(bad, PASSWD, GROUP).is_err(), "{bad}");
        }
    }
}
