//! Gateways and pools of different builds: neither serves the other's requests, and no request
//! fails.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    support::{assertions::complete_response, web_servers::eventually},
    warm::{TELLS_ITSELF, WarmSite, Who},
};

/// Puts gateway and engine of another build in the place of those that are there. Gives the names
/// of both builds.
fn upgrade(site: &WarmSite) -> (String, String) {
    let old = site.dir.build();
    let (engine, new) = site.dir.of_another_build("bin/libwsgate_engine.so");
    let (gateway, _) = site.dir.of_another_build("bin/wsgate");
    site.dir.executable("bin/libwsgate_engine.so", engine);
    site.dir.executable("bin/wsgate", gateway);
    assert_eq!(site.dir.build(), new);
    (old, new)
}

#[test]
fn a_gateway_of_another_build_starts_a_pool_of_its_own() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "", TELLS_ITSELF);
        site.warm_up();
        let before = Who::of(&site.ask());
        assert!(before.is_warm(), "{}", site.log());
        upgrade(&site);
        assert!(!Who::of(&site.ask()).is_warm(), "the old pool is not asked");
        eventually("the new pool serves", || {
            let response = site.ask();
            assert_eq!(complete_response(&response.raw).status, 200, "{response:?}");
            let who = Who::of(&response);
            assert_ne!(who.born, before.born, "{}", site.log());
            who.is_warm()
        });
        eventually("the old pool ends", || site.supervisors().len() == 1);
        let log = site.log();
        assert!(!log.contains("W0801") && !log.contains("error["), "{log}");
    }
}

#[test]
fn a_gateway_that_meets_a_pool_of_another_build_falls_back_to_cold_cgi_and_logs_it_once() {
    let site = WarmSite::new(TELLS_ITSELF);
    site.warm_up();
    let of_old = site.files(".sock").remove(0);
    // The supervisor would exit.
    let supervisor = site.supervisors().remove(0);
    kill_process(Pid::from_raw(supervisor).unwrap(), Signal::STOP).unwrap();
    let (old, new) = upgrade(&site);
    site.ask();
    site.await_pools(2);
    let of_new = site.files(".sock").into_iter().find(|path| *path != of_old).unwrap();
    site.wsgate(&["stop", of_new.file_stem().unwrap().to_str().unwrap()]);
    eventually("the new pool has ended", || site.supervisors().len() == 1);
    // Both builds get the same name.
    fs::hard_link(&of_old, &of_new).unwrap();
    for _ in 0..3 {
        let response = site.ask();
        assert_eq!(complete_response(&response.raw).status, 200, "{response:?}");
        assert!(!Who::of(&response).is_warm(), "{}", site.log());
    }
    let log = site.log();
    assert_eq!(log.matches("W0801").count(), 1, "{log}");
    let reason = format!("its worker is of build `{old}`, this gateway of build `{new}`");
    assert!(log.contains(&reason) && !log.contains("error["), "{log}");
    assert_eq!(site.supervisors().len(), 1, "the old pool lives on");
}
