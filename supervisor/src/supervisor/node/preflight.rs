//! Before a bundle is taken up: whether this machine can run it
//! ([`crate::supervisor::preflight`] judges).
//!
//! What the kernel can do is tried by a process of its own when the first
//! bundle comes; until that has answered the bundle waits.

use wherry_bundle::Bundle;
use wherry_bundle::model::Claim;
use wherry_core::Millis;

use super::Node;
use crate::agent::AckToken;
use crate::supervisor::preflight::kernel::Lacks;
use crate::supervisor::preflight::{self, Offer, claims, ports};
use crate::supervisor::{Event, memory};

/// A bundle that waits for what the kernel can do.
#[derive(Debug)]
pub(super) struct Unchecked {
    envelope: Vec<u8>,
    token: Option<AckToken>,
}

impl Node {
    /// What the kernel lacks; `None` if it is being tried: a bundle can wait for
    /// that by [`Self::wait_for_kernel`].
    pub(super) fn kernel_lacks(&mut self) -> Option<Lacks> {
        let sender = self.sender.clone();
        self.kernel.lacks(move |lacks| {
            // It fails only while the supervisor ends.
            let _ = sender.send(Event::Kernel(lacks));
        })
    }

    /// All that is known against `bundle`, for people.
    pub(super) fn reasons_against(&mut self, bundle: &Bundle, lacks: Lacks) -> Vec<String> {
        let (before, held) = (self.bundle.as_ref(), self.held_for(bundle));
        let claims_bytes = claims::wanted_bytes(bundle, before, &held);
        let offer = Offer {
            flash: self.durable.room_for(bundle, before, claims_bytes),
            too_small: claims::too_small(bundle, before, &held),
            memory_bytes: memory::total_bytes(),
            memory_percent_max: self.config.memory_percent_max,
            lacks,
            allowed: self.config.allowed.clone(),
        };
        self.kernel.forget_lacks();
        let cgroup = &self.config.cgroup;
        let taken = |protocol, port| ports::taken(cgroup, protocol, port);
        preflight::reasons(bundle, &offer, taken)
    }

    /// What the folders of `bundle`'s claims hold. One that nobody has looked into
    /// since the start may be as full as it is allowed to be: no bundle is refused
    /// for that.
    fn held_for(&self, bundle: &Bundle) -> claims::Held {
        let (mut held, folder) = (self.claims.held(), self.config.data.volumes());
        for Claim { name, bytes_max, .. } in &bundle.claims {
            if !held.contains_key(name) && folder.join(name.as_str()).exists() {
                held.insert(name.clone(), *bytes_max);
            }
        }
        held
    }

    pub(super) fn wait_for_kernel(&mut self, envelope: Vec<u8>, token: Option<AckToken>) {
        self.unchecked = Some(Unchecked { envelope, token });
    }

    /// The kernel was tried: the bundle that waits for that goes on.
    pub(super) fn kernel_was_tried(&mut self, lacks: Lacks, now: Millis) {
        self.kernel.learn(lacks);
        if let Some(Unchecked { envelope, token }) = self.unchecked.take() {
            self.judge(envelope, token, now);
        }
    }
}
