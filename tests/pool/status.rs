//! What `wsgate status` says about a pool whose new code cannot be loaded, and the documented
//! fields of its JSON.

use std::{collections::BTreeSet, fs};

use rustix::process::Signal;
use serde_json::Value;

use crate::{
    pool::{ECHO, Pool, PoolSetup},
    support::{
        artefacts,
        child_process::{on_terminal, run},
        fastcgi_client::FastcgiRequest,
        web_servers::source,
    },
};

fn json(pool: &Pool) -> Value {
    let ended = pool.run_wsgate(&["status", "--json", "app"]);
    serde_json::from_slice(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {ended:?}"))
}

fn text(pool: &Pool) -> String {
    pool.run_wsgate(&["status", "app"]).text()
}

#[test]
fn a_failed_reload_is_shown_with_its_reason_until_code_is_loaded() {
    for (preload, code, reason) in [
        ("yes", "import no_such_module", "W0302: "),
        ("no", "raise RuntimeError", "W0301: "),
        ("no", "import os; os._exit(3)", "W0702: a worker exited with status 3"),
        ("yes", "import os; os._exit(3)", "W0703: the template process exited with status 3"),
    ] {
        let mut pool = PoolSetup::new(ECHO).args(&["--preload", preload]).start();
        assert_eq!(json(&pool)["failed_load"], Value::Null, "{preload} {code}");
        assert!(!text(&pool).contains("failed"), "{}", text(&pool));
        pool.setup().release(code);
        assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(1), "{code}: {}", pool.log());
        let failed = json(&pool)["failed_load"].clone();
        assert!(failed["reason"].as_str().unwrap().starts_with(reason), "{code}: {failed}");
        assert!(failed["seconds"].as_u64().is_some_and(|seconds| seconds < 60), "{failed}");
        let shown = text(&pool);
        let line = shown.lines().nth(1).unwrap();
        assert!(line.contains("ago; the old code goes on serving: W0"), "{shown}");
        assert!(line.contains(reason), "{code}: {shown}");
        assert_eq!(pool.ask(&FastcgiRequest::get("/old")).text(), "/old|");
        pool.setup().release(ECHO);
        assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(0), "{}", pool.log());
        assert_eq!(json(&pool)["failed_load"], Value::Null, "{preload} {code}");
        pool.signal(Signal::TERM);
        pool.await_log("W0712");
        pool.end();
    }
}

/// A setting that cannot be used any more is a failed reload, too.
#[test]
fn a_reload_that_fails_before_python_is_started_is_shown() {
    let pool = PoolSetup::new(ECHO).start();
    pool.setup().release(&format!("#!/usr/bin/wsgate --no-such-option\n{ECHO}"));
    assert_eq!(pool.run_wsgate(&["reload", "app"]).code(), Some(1));
    assert!(text(&pool).contains("serving: W0103: "), "{}", text(&pool));
}

#[test]
fn rows_of_workers_end_at_the_width_of_a_terminal_and_are_whole_elsewhere() {
    let pool = PoolSetup::new(ECHO).start();
    let target = format!("/{}", "x".repeat(100));
    pool.ask(&FastcgiRequest::get(&target));
    let whole = text(&pool);
    assert!(whole.contains(&format!(" 200 GET {target} ")), "{whole}");
    for (columns, width) in [(80, 80), (20, 20), (0, whole.lines().last().unwrap().len())] {
        let script = format!("stty cols {columns}; {} status app", artefacts::gateway().display());
        let mut command = on_terminal(&script);
        command.env("WSGATE_RUNTIME_DIR", pool.setup().path("run"));
        let shown = run(&mut command, "").text();
        let rows: Vec<usize> = shown.lines().skip(2).map(str::len).collect();
        assert_eq!((rows.len(), rows[1]), (2, width), "{shown:?}");
    }
    pool.stop();
}

/// The names of the fields of `value`, those of objects in it as `outer.inner`.
fn fields(value: &Value, outer: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                let name = format!("{outer}{name}");
                fields(value, &format!("{name}."), into);
                into.insert(name);
            }
        }
        Value::Array(list) => list.iter().for_each(|value| fields(value, outer, into)),
        _ => {}
    }
}

#[test]
fn each_field_of_the_json_is_documented_and_no_other_is() {
    let pool = PoolSetup::new(ECHO).start();
    pool.ask(&FastcgiRequest::get("/"));
    pool.setup().release("raise RuntimeError");
    pool.run_wsgate(&["reload", "app"]);
    let mut found = BTreeSet::new();
    fields(&json(&pool), "", &mut found);
    let page = fs::read_to_string(source("docs/operate.md")).unwrap();
    let table = page.split("| field | meaning |").nth(1).unwrap().split("\n\n").next().unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
    let documented: BTreeSet<String> = cells
        .flat_map(|cell| cell.split(", "))
        .map(|name| name.trim_matches('`').to_owned())
        .collect();
    assert_eq!(found, documented);
}
