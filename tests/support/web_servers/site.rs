//! The files behind a web server: binary, engine, scripts and what they write, in a directory of
//! their own that the server's user can enter.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::support::{
    artefacts,
    web_servers::{source, venv},
};

/// Where the scripts of the source tree say that wsgate is installed.
const INSTALLED: &str = "/usr/local/bin/wsgate";

/// A directory with everything that a web server serves:
///
/// - `bin/` the gateway and its engine,
/// - `cgi-bin/` the samples and the tests' applications,
/// - `.venv` the virtualenv, which the scripts find above their directory,
/// - `var/` which scripts may write,
/// - `htdocs/`, `home/` pages, for the configurations that have them.
pub(crate) struct WebSite {
    root: TempDir,
    runner: Runner,
}

/// The program that runs the scripts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runner {
    /// The gateway, without a mode.
    Gateway,
    /// The gateway, with this `--mode`.
    GatewayOfMode(&'static str),
    /// Python's own CGI gateway: what the scripts do there is what they have to do here.
    CgiHandler,
}

impl WebSite {
    /// Puts everything in place.
    pub(crate) fn new() -> Self {
        Self::put_in_place(Runner::Gateway)
    }

    /// Creates a site whose scripts have `--mode`, and name the process that serves them.
    pub(crate) fn of_mode(mode: &'static str) -> Self {
        Self::put_in_place(Runner::GatewayOfMode(mode))
    }

    /// Creates a site whose scripts run under `wsgiref.handlers.CGIHandler`.
    pub(crate) fn under_cgi_handler() -> Self {
        Self::put_in_place(Runner::CgiHandler)
    }

    fn put_in_place(runner: Runner) -> Self {
        let root = tempfile::Builder::new().prefix("wsgate-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let site = Self { root, runner };
        for directory in ["bin", "cgi-bin", "htdocs", "home", "var", "run"] {
            fs::create_dir(site.path(directory)).unwrap();
        }
        symlink(venv(), site.path(".venv")).unwrap();
        if let Some(ServerUser { uid, gid, .. }) = ServerUser::get() {
            chown(site.path("var"), Some(uid), Some(gid)).unwrap();
        }

        install(artefacts::gateway(), &site.path("bin/wsgate"));
        install(artefacts::engine(), &site.path("bin/libwsgate_engine.so"));

        site.copy_scripts(&source("cgi-bin"), &site.path("cgi-bin"));
        site.copy_scripts(&source("tests/apps"), &site.path("cgi-bin"));
        site.copy_scripts(&source("tests/packages/apps"), &site.path("cgi-bin"));
        site
    }

    /// A path inside.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// Where warm pools are found, if scripts have them. The scripts make it.
    pub(crate) fn runtime_directory(&self) -> Option<PathBuf> {
        matches!(self.runner, Runner::GatewayOfMode(_)).then(|| self.path("var/wsgate"))
    }

    /// Copies a script of cgi-bin to another place inside, with the mode `mode`.
    pub(crate) fn place(&self, script: &str, target: &str, mode: u32) {
        let target = self.path(target);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(self.path("cgi-bin").join(script), &target).unwrap();
        fs::set_permissions(target, Permissions::from_mode(mode)).unwrap();
    }

    /// A named pipe in `var` that scripts may open either way; the test holds it open, so that
    /// nobody waits for an other end to open and none is ever lost.
    pub(crate) fn fifo(&self, name: &str) -> fs::File {
        let path = self.path("var").join(name);
        let status = Command::new("mkfifo").arg("-m").arg("666").arg(&path).status().unwrap();
        assert!(status.success(), "mkfifo {}", path.display());
        fs::File::options().read(true).write(true).open(path).unwrap()
    }

    /// A file of `length` bytes that do not repeat, readable by the server.
    pub(crate) fn big_file(&self, name: &str, length: usize) -> PathBuf {
        let path = self.path("var").join(name);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let bytes: Vec<u8> = std::iter::repeat_with(|| {
            // xorshift64: quick, and every block is another.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(length.div_ceil(8))
        .flatten()
        .take(length)
        .collect();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A command that runs as the web server's scripts do.
    pub(crate) fn as_server(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .current_dir(self.root.path());
        if let Some(ServerUser { uid, gid, .. }) = ServerUser::get() {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Processes that serve: all but those of warm pools that wait for requests.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let mut serving = self.all_processes();
        let waiting = self.pool_processes();
        serving.retain(|pid| !waiting.contains(pid));
        serving
    }

    /// Processes of warm pools that serve nobody: supervisors, their templates, and children of
    /// those which wait for a request.
    pub(crate) fn pool_processes(&self) -> Vec<i32> {
        let binary = self.path("bin/wsgate");
        let is_supervisor = |pid: i32| {
            fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == binary)
                && fs::read(format!("/proc/{pid}/cmdline"))
                    .is_ok_and(|args| args.windows(12).any(|part| part == b", supervisor"))
        };
        let processes: Vec<(i32, i32, bool)> = all_pids().filter_map(parent_and_waiting).collect();
        let supervisors: Vec<i32> =
            processes.iter().map(|found| found.0).filter(|&pid| is_supervisor(pid)).collect();
        let templates: Vec<i32> = processes
            .iter()
            .filter(|found| supervisors.contains(&found.1))
            .map(|found| found.0)
            .collect();
        let spares =
            processes.iter().filter(|(_, parent, waits)| templates.contains(parent) && *waits);
        let spares: Vec<i32> = spares.map(|found| found.0).collect();
        [supervisors, templates, spares].concat()
    }

    /// Processes of our binary, those in the scripts' directory or for one of the scripts, and
    /// their children.
    pub(crate) fn all_processes(&self) -> Vec<i32> {
        let binary = self.path("bin/wsgate");
        let mut script = b"SCRIPT_FILENAME=".to_vec();
        script.extend(self.root.path().as_os_str().as_encoded_bytes());
        let directory = self.path("cgi-bin");
        let serves = |pid: &i32| {
            let file = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
            // Files of a process that has just ended cannot be read: then it serves nothing.
            fs::read_link(file("exe")).is_ok_and(|exe| exe == binary)
                || fs::read_link(file("cwd")).is_ok_and(|cwd| cwd == directory)
                || fs::read(file("environ")).is_ok_and(|environ| {
                    environ.split(|&byte| byte == 0).any(|variable| variable.starts_with(&script))
                })
        };
        all_pids().filter(serves).collect()
    }

    fn copy_scripts(&self, from: &Path, to: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&target).unwrap();
                self.copy_scripts(&entry.path(), &target);
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                fs::write(&target, self.with_our_binary(&bytes)).unwrap();
                let mode = if target.extension().is_some_and(|extension| extension == "wsgi") {
                    0o755
                } else {
                    0o644
                };
                fs::set_permissions(&target, Permissions::from_mode(mode)).unwrap();
            }
        }
    }

    /// The script with the built binary on its first line in place of the installed one.
    fn with_our_binary(&self, script: &[u8]) -> Vec<u8> {
        let installed = format!("#!{INSTALLED}");
        let Some(rest) = script.strip_prefix(installed.as_bytes()) else { return script.to_vec() };
        let program = self.path("bin/wsgate");
        let shebang = [b"#!", program.as_os_str().as_encoded_bytes()].concat();
        match self.runner {
            Runner::GatewayOfMode(mode) => {
                let tells = include_bytes!("tells_who_serves.py");
                [&shebang[..], b" --mode ", mode.as_bytes(), rest, tells].concat()
            }
            Runner::Gateway => [&shebang[..], rest].concat(),
            Runner::CgiHandler => {
                let python = venv().join("bin/python");
                let code = rest.splitn(2, |&byte| byte == b'\n').nth(1).unwrap_or_default();
                let run: &[u8] = include_bytes!("runs_under_cgi_handler.py");
                [b"#!", python.as_os_str().as_encoded_bytes(), b"\n", code, run].concat()
            }
        }
    }
}

impl Drop for WebSite {
    fn drop(&mut self) {
        // The server has exited. The processes that a failed test has left behind are killed.
        for pid in self.all_processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// Numbers of the system calls that wait for events: epoll_wait and epoll_pwait, and epoll_pwait2.
#[cfg(target_arch = "x86_64")]
const EPOLL_WAITS: [u32; 3] = [232, 281, 441];
#[cfg(not(target_arch = "x86_64"))]
const EPOLL_WAITS: [u32; 2] = [22, 441];

/// All processes of the machine.
fn all_pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
}

/// A process with its parent, and whether it waits for events; none if it has ended.
fn parent_and_waiting(pid: i32) -> Option<(i32, i32, bool)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()?;
    let syscall = fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let number = syscall.split(' ').next().and_then(|number| number.parse::<u32>().ok());
    Some((pid, parent, number.is_some_and(|number| EPOLL_WAITS.contains(&number))))
}

/// Linked rather than copied where that can be: a build is large, and every test has a site.
fn install(built: &Path, target: &Path) {
    let readable = fs::metadata(built).unwrap().mode() & 0o055 == 0o055;
    if !readable || fs::hard_link(built, target).is_err() {
        fs::copy(built, target).unwrap();
        fs::set_permissions(target, Permissions::from_mode(0o755)).unwrap();
    }
}

/// Whom the server's scripts run as when the tests run as root; otherwise they run as the user of
/// the tests.
pub(crate) struct ServerUser {
    /// Name for the server's configuration.
    pub(crate) name: &'static str,
    /// User id.
    pub(crate) uid: u32,
    /// Its group.
    pub(crate) gid: u32,
}

impl ServerUser {
    /// Looks it up.
    pub(crate) fn get() -> Option<Self> {
        if !rustix::process::getuid().is_root() {
            return None;
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap();
        let account = ["www-data", "apache", "http", "nobody"].into_iter().find_map(|name| {
            let account = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
            let mut ids = account.split(':').skip(2).map(|field| field.parse().ok());
            Some(Self { name, uid: ids.next()??, gid: ids.next()?? })
        });
        Some(account.expect("a user that a web server can run as"))
    }
}
