//! A directory that wsgate is installed in, with scripts that a web server would execute by their
//! paths.

use std::{
    fs::{
        Permissions, {self},
    },
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::support::{
    artefacts, child_process,
    probe::{ORDINARY, dedent, python},
};

/// Everything that a script needs, where every user can reach it.
pub(crate) struct InstallDir {
    root: TempDir,
}

impl InstallDir {
    /// `bin/` with the gateway and its engine, and room for scripts.
    pub(crate) fn new() -> Self {
        // The tree may stand where only its owner can go, and below a path too long for a `#!`
        // line.
        let root = tempfile::Builder::new().prefix("wsgate-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o755)).unwrap();
        let dir = Self { root };
        dir.install(artefacts::gateway(), "bin/wsgate", 0o755);
        dir.install(artefacts::engine(), "bin/libwsgate_engine.so", 0o755);
        dir
    }

    /// A path inside.
    pub(crate) fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// The gateway.
    pub(crate) fn wsgate(&self) -> PathBuf {
        self.path("bin/wsgate")
    }

    /// A file with the content `content`, which need not be indented to the left.
    pub(crate) fn file(&self, relative: &str, content: &str) -> PathBuf {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, dedent(content)).unwrap();
        path
    }

    /// An executable file: `WSGATE` on its first line stands for the gateway's path.
    pub(crate) fn script(&self, relative: &str, first_line: &str, code: &str) -> PathBuf {
        let first_line = first_line.replace("WSGATE", self.wsgate().to_str().unwrap());
        self.executable(relative, format!("{first_line}\n{}", dedent(code)))
    }

    /// An executable file.
    pub(crate) fn executable(&self, relative: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let draft = self.path(&format!("{relative}.draft"));
        fs::create_dir_all(draft.parent().unwrap()).unwrap();
        fs::write(&draft, content).unwrap();
        self.install(&draft, relative, 0o755);
        fs::remove_file(draft).unwrap();
        self.path(relative)
    }

    /// Copies a file here. Another process does: a process that another test starts meanwhile would
    /// inherit the open file from this one, and a file that is open for writing cannot be executed.
    pub(crate) fn install(&self, from: &Path, to: &str, mode: u32) {
        let to = self.path(to);
        let as_it_is = fs::metadata(from).unwrap().mode() & 0o777 == mode;
        // Binaries are large, and a link does as well where the file systems allow it.
        if as_it_is && [artefacts::gateway(), artefacts::engine()].contains(&from) {
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            if fs::hard_link(from, &to).is_ok() {
                return;
            }
        }
        let status = Command::new("install")
            .arg("-D")
            .arg("-m")
            .arg(format!("{mode:o}"))
            .args([from, &to])
            .status();
        assert!(status.unwrap().success(), "install {} {}", from.display(), to.display());
    }

    /// The build of gateway and engine.
    pub(crate) fn build(&self) -> String {
        let script = self.file("empty.wsgi", "application = None\n");
        let mut check = Command::new(self.wsgate());
        let text = child_process::run(check.arg("check").arg(&script), "").text();
        let build = text
            .lines()
            .find(|line| line.starts_with("engine "))
            .and_then(|line| line.rsplit(' ').next());
        build.unwrap_or_else(|| panic!("no build in {text}")).to_owned()
    }

    /// A gateway or engine as it would be of another build, and the name of that.
    pub(crate) fn of_another_build(&self, relative: &str) -> (Vec<u8>, String) {
        let build = self.build();
        let other = format!("{}other", &build[..build.len() - 5]);
        let mut content = fs::read(self.path(relative)).unwrap();
        let names = content
            .windows(build.len())
            .enumerate()
            .filter(|(_, window)| *window == build.as_bytes());
        let positions: Vec<usize> = names.map(|(at, _)| at).collect();
        assert!(!positions.is_empty(), "{relative} does not carry its build");
        for at in positions {
            content[at..at + build.len()].copy_from_slice(other.as_bytes());
        }
        (content, other)
    }

    /// A named pipe.
    pub(crate) fn fifo(&self, relative: &str) -> PathBuf {
        let path = self.path(relative);
        assert!(
            Command::new("mkfifo").arg(&path).status().unwrap().success(),
            "mkfifo {}",
            path.display()
        );
        path
    }

    /// The CGI request for `script` that a web server would make, executing it by its path.
    pub(crate) fn request(&self, script: &Path) -> Command {
        let mut command = Command::new(script);
        self.describe(&mut command, script);
        command
    }

    /// Gives `command` the variables of a request for `script`, and no others.
    pub(crate) fn describe(&self, command: &mut Command, script: &Path) {
        let name = script.file_name().unwrap().to_str().unwrap();
        // Scripts that name no interpreter get that of the tests.
        let path = format!("{}:/usr/local/bin:/usr/bin:/bin", python().parent().unwrap().display());
        command
            .env_clear()
            .envs(ORDINARY)
            .env("SCRIPT_NAME", format!("/cgi-bin/{name}"))
            .env("REQUEST_URI", format!("/cgi-bin/{name}"))
            .env("SCRIPT_FILENAME", script)
            .env("PATH", path)
            .env("WSGATE_RUNTIME_DIR", self.path("run"))
            .current_dir(script.parent().unwrap())
            .stdin(Stdio::null());
    }
}
