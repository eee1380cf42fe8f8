//! Control sockets of users who mean harm: root's monitor asks them all.

use std::{
    io::{Read as _, Write as _},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
};

use crate::{
    monitor::{Monitor, sample},
    pool::ECHO,
    support::{
        control_socket::{
            control, says_garbage, says_little_for_ever, says_nothing, says_too_much,
        },
        pool::PoolSetup,
        web_servers::eventually,
    },
};

/// Claims to be another pool, with extreme numbers and texts that would mean something in HTML, in
/// labels or on a terminal.
fn lies(mut stream: UnixStream) {
    let mut question = [0; 16];
    let _ = stream.read(&mut question);
    let text = r#"\"} 1\n<img src=x onerror=alert(1)>\u001b[2J\u202e"#;
    let most = u64::MAX;
    let workers: Vec<String> = (0..3000)
        .map(|number| {
            format!(
                r#"{{"pid":{number},"number":{number},"busy":true,"milliseconds":{most},
                "requests":{most},"rss":{most},"cpu_milliseconds":{most},
                "request":{{"id":"{text}","method":"{text}","target":"{text}"}}}}"#
            )
        })
        .collect();
    let status = format!(
        r#"{{"name":"app","app":"{text}","user":"root","version":"{text}","started":{most},
        "age":{most},"requests":{most},"peak_busy":{most},"preload":"{text}","busy":{most},
        "listeners":[{{"address":"{text}","accept_queue":4294967295}},{{"address":"{text}"}}],
        "crashed":{{"{text}":{most}}},"last_reload":{{"time":{most},"succeeded":false,
        "reason":"{text}"}},"duration":{{"bounds_microseconds":[1],"counts":[{most},{most}],
        "sum_microseconds":{most}}},"waiting":{{"counts":[1,2,3]}},"workers":[{}]}}"#,
        workers.join(",")
    );
    let _ = stream.write_all(status.as_bytes());
}

#[test]
fn pools_that_lie_or_hang_change_nothing_about_the_others() {
    let pool = PoolSetup::new(ECHO).start();
    let run = pool.setup().path("run");
    for (name, handle) in [
        ("a-silent", says_nothing as fn(UnixStream)),
        ("b-endless", says_too_much),
        ("c-slow", says_little_for_ever),
        ("d-lies", lies),
        ("x-garbage", says_garbage),
    ] {
        control(&run, name, handle);
    }
    let full = UnixListener::bind(run.join("full.pool")).unwrap();
    rustix::net::listen(&full, 0).unwrap();
    let _waiting = UnixStream::connect(run.join("full.pool")).unwrap();
    symlink("/dev/zero", run.join("link.pool")).unwrap();
    let monitor = Monitor::of(&pool);
    eventually("the pool is shown beside the others", || {
        let metrics = monitor.metrics();
        metrics.contains(&sample("wsgate_pool_up", "", "1"))
            && metrics.contains("wsgate_pool_up{pool=\"d-lies\"")
    });
    let metrics = monitor.metrics();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        assert!(line.starts_with("wsgate_") && !line.contains('\x1b'), "{line:?}");
    }
    assert_eq!(metrics.matches("wsgate_requests_total{pool=\"app\"").count(), 1, "{metrics}");
    for name in ["a-silent", "b-endless", "c-slow", "x-garbage"] {
        let up = format!("wsgate_pool_up{{pool=\"{name}\"");
        assert!(
            !metrics.lines().any(|line| line.starts_with(&up) && line.ends_with(" 1")),
            "{name}"
        );
    }
    let page = monitor.get("/").text();
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"), "the text is shown");
    assert!(!page.contains("<img") && !page.contains('\u{202e}') && !page.contains('\x1b'));
    assert!(page.len() < 200_000, "{}", page.len());
    let status = monitor.get("/pools.json").json();
    let names: Vec<&str> =
        status.as_array().unwrap().iter().flat_map(|it| it["name"].as_str()).collect();
    assert!(names.contains(&"app") && names.contains(&"d-lies"), "{names:?}");
    monitor.stop();
    pool.stop();
}
