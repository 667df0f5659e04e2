//! Bundles: what is signed is parsed only once the signature holds, so what
//! is parsed here is what a node kept ([`envelope::open_kept`]).

#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_bundle::{Name, envelope};

fuzz_target!(|bytes: &[u8]| {
    let own = Name::new("gw-1").expect("it is a name");
    assert!(envelope::open(bytes, &[], &own).is_err(), "nobody is trusted");
    if let Ok(bundle) = envelope::open_kept(bytes, &own) {
        bundle.validate().expect("it was checked");
        for deployment in &bundle.deployments {
            let _ = bundle.layers_of(deployment);
            let _ = bundle.pod_hash(deployment);
        }
    }
});
