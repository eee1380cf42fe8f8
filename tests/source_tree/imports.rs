//! Which room may use which: a room uses rooms below it only, and no two files use each other.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{
    source_tree::{
        Violation, assert_no_violation,
        rust_code::{crate_paths, without_comments_and_literals},
        source_files,
    },
    support::web_servers::source,
};

/// Rooms of the gateway, from the top. Rooms of one row do not use each other.
const GATEWAY_LAYERS: [&[&str]; 9] = [
    &["main"],
    &["cli"],
    &["call", "cgi", "check", "init", "pool"],
    &["guard"],
    &["config"],
    &["python"],
    &["request"],
    &["exit"],
    &["system"],
];

/// Rooms of the engine, from the top.
const ENGINE_LAYERS: [&[&str]; 9] = [
    &["lib"],
    &["run"],
    &["check"],
    &["cgi", "pool"],
    &["loading"],
    &["transport"],
    &["wsgi"],
    &["advice", "log", "reporter", "stdlib"],
    &["process"],
];

/// The modules of a crate, each with the modules that it names.
struct Modules {
    root: &'static str,
    /// Path of the file by the path of the module: `pool::control`.
    files: BTreeMap<String, String>,
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Modules {
    fn read(root: &'static str) -> Self {
        let mut files = BTreeMap::new();
        let mut paths = BTreeMap::new();
        for file in source_files().iter().filter(|file| file.is_rust()) {
            let Some(relative) = file.path.strip_prefix(root) else { continue };
            let module = relative.trim_start_matches('/').trim_end_matches(".rs");
            let module = module.trim_end_matches("/mod").replace('/', "::");
            let code = without_comments_and_literals(&file.text);
            paths.insert(module.clone(), crate_paths(&code));
            files.insert(module, file.path.clone());
        }
        assert!(files.len() > 40, "{root}: {files:?}");
        let uses = paths
            .into_iter()
            .map(|(module, paths)| {
                let used = paths.iter().filter_map(|path| module_of(path, &files));
                let used = used.filter(|used| *used != module).collect();
                (module, used)
            })
            .collect();
        Self { root, files, uses }
    }

    fn rooms_out_of_order(&self, layers: &[&[&str]]) -> Vec<Violation> {
        let layer = |room: &str| {
            layers.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| {
                panic!("{}: the room `{room}` has no layer in {}", self.root, file!())
            })
        };
        let mut violations = Vec::new();
        for (module, used) in &self.uses {
            let room = room_of(module);
            for used in used {
                let used_room = room_of(used);
                if room != used_room && layer(room) >= layer(used_room) {
                    violations.push(Violation {
                        subject: format!("{}: {room} uses {used_room}", self.root),
                        place: format!("{} uses {used}", self.files[module]),
                    });
                }
            }
        }
        violations
    }

    /// Modules that use each other. A module and one inside it may: they are one unit.
    fn circles(&self) -> Vec<Violation> {
        let reachable: BTreeMap<&String, BTreeSet<&String>> =
            self.uses.keys().map(|module| (module, self.reachable_from(module))).collect();
        let mut circles = BTreeSet::new();
        for (module, others) in &reachable {
            let circle: BTreeSet<&String> =
                others.iter().copied().filter(|other| reachable[other].contains(module)).collect();
            if !circle.is_empty() {
                circles.insert(circle);
            }
        }
        circles
            .into_iter()
            .map(|circle| {
                let names: Vec<&str> = circle.into_iter().map(String::as_str).collect();
                let subject = format!("{}: {}", self.root, names.join("+"));
                Violation { place: subject.clone(), subject }
            })
            .collect()
    }

    fn reachable_from(&self, module: &String) -> BTreeSet<&String> {
        let mut reachable = BTreeSet::new();
        let mut next = vec![self.uses.get_key_value(module).unwrap().0];
        while let Some(module) = next.pop() {
            for used in &self.uses[module] {
                if !is_inside(used, module) && !is_inside(module, used) && reachable.insert(used) {
                    next.push(used);
                }
            }
        }
        reachable
    }
}

/// The innermost module of a path behind `crate::`; none for an item of the crate's root.
fn module_of(path: &str, files: &BTreeMap<String, String>) -> Option<String> {
    let mut path = path;
    loop {
        if files.contains_key(path) {
            return Some(path.to_owned());
        }
        path = path.rsplit_once("::")?.0;
    }
}

fn room_of(module: &str) -> &str {
    module.split_once("::").map_or(module, |(room, _)| room)
}

fn is_inside(module: &str, outer: &str) -> bool {
    module.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"))
}

#[test]
fn every_room_uses_rooms_below_it_only() {
    let mut violations = Modules::read("src").rooms_out_of_order(&GATEWAY_LAYERS);
    violations.extend(Modules::read("crates/engine/src").rooms_out_of_order(&ENGINE_LAYERS));
    assert_no_violation("imports from above", &violations, &[]);
}

#[test]
fn no_two_files_use_each_other() {
    let mut violations = Modules::read("src").circles();
    violations.extend(Modules::read("crates/engine/src").circles());
    assert_no_violation("circles of imports", &violations, &[]);
}

#[test]
fn the_leaf_crates_use_no_other_crate_of_the_tree() {
    let crates = [
        "control",
        "diagnostics",
        "engine",
        "fastcgi-server",
        "fastcgi_server",
        "http",
        "process-title",
        "process_title",
        "wire",
    ];
    for leaf in ["control", "diagnostics", "fastcgi-server", "process-title", "wire"] {
        let manifest = format!("crates/{leaf}/Cargo.toml");
        let manifest = fs::read_to_string(source(&manifest)).unwrap();
        let dependencies = manifest.split("\n[dependencies]\n").nth(1).unwrap_or_default();
        let used = dependencies.lines().take_while(|line| !line.starts_with('['));
        let used = used.filter_map(|line| line.split(['.', ' ', '=']).next());
        let used: Vec<_> = used.filter(|name| crates.contains(name)).collect();
        assert!(used.is_empty(), "{leaf} uses {used:?}");
    }
}
