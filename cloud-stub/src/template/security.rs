//! `securityContext` of a pod and of a container: as whom it runs, and what it
//! may do.

use std::collections::BTreeSet;

use wherry_bundle::model::{CAPABILITIES, Seccomp, User};

use super::place::{Object, Place};
use super::seccomp::seccomp;
use super::shapes;

/// What a pod says for all its containers.
#[derive(Clone, Debug, Default)]
pub(super) struct PodSecurity {
    user: Identity,
    /// Groups that every container is a member of.
    groups: Vec<u32>,
    pub fs_group: Option<u32>,
    seccomp: Seccomp,
}

/// Of a container.
#[derive(Clone, Debug)]
pub(super) struct Security {
    user: Identity,
    groups: Vec<u32>,
    pub capabilities: BTreeSet<String>,
    pub read_only_root: bool,
    pub seccomp: Seccomp,
}

#[derive(Clone, Copy, Debug, Default)]
struct Identity {
    uid: Option<u32>,
    gid: Option<u32>,
    not_root: Option<bool>,
}

/// Kubernetes' `int64`, as the kernel takes it.
const ID_MAX: i64 = 0x7fff_ffff;

/// Of a pod's `spec`.
pub(super) fn of_pod(spec: &Object<'_>) -> Option<PodSecurity> {
    let Some(place) = spec.get("securityContext") else { return Some(PodSecurity::default()) };
    let object = place.object(&shapes::POD_SECURITY)?;
    let user = identity(&object);
    let mut groups = Vec::new();
    for place in object.get("supplementalGroups").iter().flat_map(Place::items) {
        groups.extend(place.int::<u32>(0, ID_MAX));
    }
    let fs_group = object.optional("fsGroup", |place| place.int(0, ID_MAX))?;
    groups.extend(fs_group);
    let seccomp = seccomp(&object, Seccomp::default())?;
    Some(PodSecurity { user: user?, groups, fs_group, seccomp })
}

/// Of a container in that pod.
pub(super) fn of_container(container: &Object<'_>, pod: &PodSecurity) -> Option<Security> {
    let all = Security {
        user: pod.user,
        groups: pod.groups.clone(),
        capabilities: BTreeSet::new(),
        read_only_root: true,
        seccomp: pod.seccomp,
    };
    let Some(place) = container.get("securityContext") else { return Some(all) };
    let object = place.object(&shapes::SECURITY)?;
    let own = identity(&object);
    for (field, what) in [
        ("privileged", "no container is: ask for the capabilities that it needs"),
        ("allowPrivilegeEscalation", "no program gains privileges by running another here"),
    ] {
        if let Some(place) = object.get(field)
            && place.bool() == Some(true)
        {
            place.problem(what);
        }
    }
    let read_only_root =
        object.get("readOnlyRootFilesystem").map_or(Some(true), |place| place.bool());
    let capabilities = capabilities(&object);
    let seccomp = seccomp(&object, pod.seccomp);
    let own = own?;
    let user = Identity {
        uid: own.uid.or(all.user.uid),
        gid: own.gid.or(all.user.gid),
        not_root: own.not_root.or(all.user.not_root),
    };
    Some(Security {
        user,
        capabilities: capabilities?,
        read_only_root: read_only_root?,
        seccomp: seccomp?,
        ..all
    })
}

impl Security {
    /// As whom a container of an image runs that would run as `image`.
    pub fn user(&self, place: &Place<'_>, image: &User) -> User {
        let uid = self.user.uid.unwrap_or(image.uid);
        // Whose primary group is not known is in root's, as in Kubernetes.
        let same = uid == image.uid;
        let gid = self.user.gid.unwrap_or(if same { image.gid } else { 0 });
        let of_image = image.additional_gids.iter().filter(|_| same);
        let mut additional_gids: Vec<u32> = Vec::new();
        for group in of_image.chain(&self.groups) {
            if !additional_gids.contains(group) {
                additional_gids.push(*group);
            }
        }
        if self.user.not_root == Some(true) && uid == 0 {
            place.problem("runAsNonRoot, but it would run as root: set runAsUser");
        }
        User { uid, gid, additional_gids }
    }
}

fn identity(object: &Object<'_>) -> Option<Identity> {
    let id = |field: &str| object.optional(field, |place| place.int(0, ID_MAX));
    let (uid, gid) = (id("runAsUser"), id("runAsGroup"));
    let not_root = object.optional("runAsNonRoot", Place::bool);
    Some(Identity { uid: uid?, gid: gid?, not_root: not_root? })
}

/// What is added; all others are dropped anyway, so `drop` only takes back.
fn capabilities(security: &Object<'_>) -> Option<BTreeSet<String>> {
    let Some(place) = security.get("capabilities") else { return Some(BTreeSet::new()) };
    let lists = place.object(&shapes::CAPABILITIES)?;
    let read = |field: &str, all_allowed: bool| -> BTreeSet<String> {
        let places = lists.get(field).iter().flat_map(Place::items).collect::<Vec<_>>();
        let names = places.iter().filter_map(|place| {
            let text = place.text()?;
            let name = text.strip_prefix("CAP_").unwrap_or(&text).to_owned();
            let all = all_allowed && name == "ALL";
            if !all && !CAPABILITIES.contains(&name.as_str()) {
                place.problem(format!("`{text}` is not a capability that can be named here"));
            }
            Some(name)
        });
        names.collect()
    };
    let dropped = read("drop", true);
    let added = read("add", false);
    Some(added.into_iter().filter(|name| !dropped.contains(name)).collect())
}
