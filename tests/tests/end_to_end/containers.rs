//! Containers, as scenarios of this machine's node.

use wherry_tests::scenario::{ends, isolation, logs, sealing};
use wherry_tests::shop::Shop;
use wherry_tests::world::with_gateway;

#[test]
fn a_pod_is_isolated_and_its_containers_share_it() {
    with_gateway("iso", |host, cloud, node| {
        Shop::default().package().roll_out(cloud, host)?;
        node.wait_running(1)?;
        isolation::pods_are_isolated(node)
    });
}

#[test]
fn ends_are_real_and_restarts_back_off() {
    with_gateway("ends", |host, cloud, node| {
        ends::package("1.0.0").roll_out(cloud, host)?;
        ends::are_real(node)
    });
}

#[test]
fn logs_are_kept_and_found() {
    with_gateway("logs", |host, cloud, node| {
        Shop::default().package().roll_out(cloud, host)?;
        node.wait_running(1)?;
        logs::are_kept_and_found(cloud, node)
    });
}

#[test]
fn what_runs_as_launcher_cannot_be_changed() {
    with_gateway("seal", |_, _, node| sealing::holds(node));
}
