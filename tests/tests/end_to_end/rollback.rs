//! Probes decide what is good, and what is not is left; on machines:
//! `wherry-qemu whole`.

use wherry_tests::package::{Component, Package};
use wherry_tests::scenario::rollback;
use wherry_tests::templates::{EVERYWHERE, env, lion};
use wherry_tests::world::with_gateway;

#[test]
fn what_is_ill_is_restarted_and_what_never_comes_up_is_left() {
    with_gateway("roll", |host, cloud, node| {
        rollback::good_is_kept(host, cloud, node, ("1.0.0", 1))?;
        rollback::crashing_is_left(host, cloud, node, ("2.0.0", 2, 1))?;
        rollback::never_ready_is_left(host, cloud, node, ("3.0.0", 3, 1))?;
        let other = lion("other", "", "", &env(&[EVERYWHERE]));
        let other = Component::new("other", "lion:1.0.0", other);
        Package::new("4.0.0", vec![other]).roll_out(cloud, host)?;
        node.wait_running(4)?;
        rollback::goodbye_was_said(node)
    });
}
