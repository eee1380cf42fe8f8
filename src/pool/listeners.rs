//! Listening sockets: made with the right owner before anybody can connect, taken away again at the
//! end (FastCGI 1.0, 2.2).

use std::{
    ffi::OsStr,
    fmt, fs, io,
    net::{SocketAddr, TcpListener},
    os::{
        fd::{AsRawFd as _, OwnedFd, RawFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::{
    fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, chownat, fstat, openat},
    io::ioctl_fionbio,
    net::{
        AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind,
        getsockname, listen, shutdown, socket_with, sockopt,
    },
    process::{geteuid, umask},
};

use crate::{
    pool::{
        file_owner::Maker,
        inherited::{
            Inherited, {self},
        },
    },
    system::{host_port::HostPort, hosts, trusted_path::LastLink, users},
};

/// Connections that may wait to be accepted; the kernel's own limit may be lower.
const BACKLOG: i32 = 1024;

/// Longest path of a Unix socket, in bytes: what the kernel takes, less room for the name under
/// which it is made.
const LONGEST_PATH: usize = 96;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A Unix socket at this path.
    Unix(PathBuf),
    /// A TCP socket at HOST:PORT.
    Tcp(String),
    /// A descriptor that is a listening socket, since whoever started us has made it one.
    Descriptor(RawFd),
}

impl Address {
    /// Where FastCGI's process managers put a listening socket (FastCGI 1.0, 2.2).
    pub(crate) const STANDARD_INPUT: Self = Self::Descriptor(0);

    /// Where a socket listens, if that can be said in words.
    fn of(socket: &OwnedFd) -> Option<Self> {
        let name = getsockname(socket).ok()?;
        if let Ok(name) = SocketAddrUnix::try_from(name.clone()) {
            return Some(Self::Unix(PathBuf::from(OsStr::from_bytes(name.path_bytes()?))));
        }
        SocketAddr::try_from(name).ok().map(|name| Self::Tcp(name.to_string()))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        if let Some(path) = word.strip_prefix("unix:") {
            return match path.len() {
                0 => Err("`unix:` names no path".to_owned()),
                length if length > LONGEST_PATH => {
                    Err(format!("the path is {length} bytes long, and may have {LONGEST_PATH}"))
                }
                _ => Ok(Self::Unix(PathBuf::from(path))),
            };
        }
        if let Some(number) = word.strip_prefix("fd:") {
            let is_plain = number.bytes().all(|byte| byte.is_ascii_digit());
            return match number.parse() {
                Ok(number) if is_plain => Ok(Self::Descriptor(number)),
                _ => Err(format!("`{number}` is no number of a descriptor")),
            };
        }
        match HostPort::parse(word) {
            Some(_) => Ok(Self::Tcp(word.to_owned())),
            None => Err(format!("`{word}` is none of unix:PATH, HOST:PORT and fd:N")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => f.write_str(address),
            Self::Descriptor(number) => write!(f, "fd:{number}"),
        }
    }
}

/// Who may connect to Unix sockets.
#[derive(Clone, Debug)]
pub(crate) struct Access {
    /// Permissions.
    pub(crate) mode: u32,
    /// User and group, by number.
    pub(crate) owner: (Option<u32>, Option<u32>),
}

impl Access {
    /// Looks up `owner`, which is USER or USER:GROUP, each a name or a number.
    pub(crate) fn new(mode: u32, owner: Option<&str>) -> Result<Self> {
        let Some(owner) = owner else {
            return Ok(Self { mode, owner: (None, None) });
        };
        ensure!(!owner.is_empty(), "--socket-owner is empty: write USER or USER:GROUP");
        let (user, group) =
            owner.split_once(':').map_or((owner, None), |(user, group)| (user, Some(group)));
        let number = match user {
            "" => None,
            name => Some(
                users::user(name)
                    .or_else(|| users::number(name))
                    .with_context(|| format!("there is no user `{name}`"))?,
            ),
        };
        let group = match group {
            Some(name) => Some(
                users::group(name)
                    .or_else(|| users::number(name))
                    .with_context(|| format!("there is no group `{name}`"))?,
            ),
            None => users::groups(user).and_then(|groups| groups.first().copied()),
        };
        Ok(Self { mode, owner: (number, group) })
    }
}

/// A socket that web servers connect to.
#[derive(Debug)]
pub(crate) struct Listener {
    /// The socket.
    pub(crate) socket: OwnedFd,
    /// The address, with the port that the kernel chose if it was 0.
    pub(crate) address: Address,
    /// The file that is ours to take away.
    file: Option<SocketFile>,
    /// Where the file is to be, as soon as somebody is to find it.
    public: Option<PathBuf>,
}

#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Listener {
    /// Listens at `address`; a descriptor is taken from those that were inherited.
    ///
    /// # Errors
    /// If somebody listens there already, the kernel does not allow it, or the descriptor is no
    /// listening socket.
    pub(super) fn open(
        address: &Address,
        access: &Access,
        maker: Maker<'_>,
        inherited: &mut Inherited,
    ) -> Result<Self> {
        match address {
            Address::Unix(path) => open_unix(path, access, maker),
            Address::Tcp(name) => {
                let listener =
                    hosts::addresses(name).and_then(|found| TcpListener::bind(&found[..]));
                let listener =
                    listener.with_context(|| format!("`{name}` cannot be listened at"))?;
                listen(&listener, BACKLOG)?;
                let address = Address::Tcp(listener.local_addr()?.to_string());
                Ok(Self { socket: listener.into(), address, file: None, public: None })
            }
            &Address::Descriptor(number) => {
                let socket = inherited.give(number).with_context(|| {
                    format!("descriptor `{number}` is served already; name it once")
                })?;
                inherited::check(number, &socket)?;
                let address = Address::of(&socket).unwrap_or(Address::Descriptor(number));
                // Whoever made it takes its file away, too.
                Ok(Self { socket, address, file: None, public: None })
            }
        }
    }
}

impl Listener {
    /// A socket for gateways of this user, which nobody finds at `path` before
    /// [`Listener::publish`].
    ///
    /// # Errors
    /// If the kernel does not allow it.
    pub(super) fn handoff(path: &Path) -> Result<Self> {
        let draft = path.with_extension(format!("{}.draft", std::process::id()));
        // What a process of our number left behind is nobody's.
        let _ = fs::remove_file(&draft);
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        bind(&socket, &SocketAddrUnix::new(&draft)?)?;
        let file =
            Some(SocketFile { inode: fs::symlink_metadata(&draft)?.ino(), path: draft.clone() });
        let listener = Self {
            socket,
            address: Address::Unix(path.to_owned()),
            file,
            public: Some(path.to_owned()),
        };
        fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
        listen(&listener.socket, BACKLOG)?;
        Ok(listener)
    }

    /// From now on the socket is found at its path. What stands there is of a pool that has ended.
    ///
    /// # Errors
    /// If it cannot be put there.
    pub(super) fn publish(&mut self) -> Result<()> {
        if let (Some(public), Some(file)) = (self.public.take(), &mut self.file) {
            fs::rename(&file.path, &public).with_context(|| {
                format!("the socket `{}` cannot be put in its place", public.display())
            })?;
            file.path = public;
        }
        Ok(())
    }

    /// Nobody is let wait for what will not come: those who have connected find the connection
    /// closed, and nobody else can connect.
    pub(super) fn turn_away(&self) {
        // If the kernel does not do that, they wait until their own patience is over.
        let _ = shutdown(&self.socket, Shutdown::Both);
        if ioctl_fionbio(&self.socket, true).is_ok() {
            while accept_with(&self.socket, SocketFlags::CLOEXEC).is_ok() {}
        }
    }

    /// From now on the socket is not found any more.
    pub(super) fn withdraw(&mut self) {
        self.public = None;
        if let Some(file) = self.file.take()
            && fs::symlink_metadata(&file.path).is_ok_and(|found| found.ino() == file.inode)
        {
            // Somebody may have taken it away already.
            let _ = fs::remove_file(&file.path);
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.withdraw();
    }
}

/// Is standard input a listening socket, as FastCGI's process managers leave it (FastCGI 1.0, 2.2)?
pub(crate) fn stdin_listens() -> bool {
    sockopt::socket_acceptconn(io::stdin()).unwrap_or(false)
}

fn open_unix(path: &Path, access: &Access, maker: Maker<'_>) -> Result<Listener> {
    let shown = path.display();
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            bail!("`{shown}` is there and no socket; it is left alone")
        }
        Ok(_) if UnixStream::connect(path).is_ok() => {
            bail!("somebody listens at `{shown}` already; end that first, or name another path")
        }
        // What a process that was killed has left behind is replaced below.
        _ => {}
    }
    // Made under another name, so that what is dead stays until there is another. It listens before
    // it has its name: another start would take it for dead. Owner and permissions are right then.
    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let made = (|| -> io::Result<(UnixListener, u64)> {
        let ((listener, file), rights) =
            maker.make(&draft, LastLink::Kept, |draft, _| make_socket(&draft.path, access.mode))?;
        let named = own(&file, access, maker)
            .and_then(|()| Ok(listen(&listener, BACKLOG)?))
            .and_then(|()| rights.act(|| fs::rename(&draft, path)));
        if let Err(error) = named {
            let _ = rights.act(|| fs::remove_file(&draft));
            return Err(error);
        }
        Ok((listener, fstat(&file)?.st_ino))
    })();
    match made {
        Ok((listener, inode)) => Ok(Listener {
            socket: listener.into(),
            address: Address::Unix(path.to_owned()),
            file: Some(SocketFile { path: path.to_owned(), inode }),
            public: None,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("`{shown}` cannot be listened at: its directory is not there; wsgate makes none")
        }
        Err(error) => Err(error).with_context(|| format!("`{shown}` cannot be listened at")),
    }
}

/// Binds a socket that has `mode` from the beginning, and opens its file: whatever somebody puts at
/// the path from now on, this is the file whose owner is changed.
fn make_socket(path: &Path, mode: u32) -> io::Result<(UnixListener, OwnedFd)> {
    // What a process of our number left behind is nobody's.
    let _ = fs::remove_file(path);
    let before = umask(Mode::from_raw_mode(0o777 & !mode));
    let bound = UnixListener::bind(path);
    umask(before);
    let listener = bound?;
    let file = openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    let found = fstat(&file)?;
    let is_ours = FileType::from_raw_mode(found.st_mode) == FileType::Socket
        && found.st_uid == geteuid().as_raw()
        && found.st_nlink == 1;
    if !is_ours {
        return Err(io::Error::other("somebody put another file in its place"));
    }
    Ok((listener, file))
}

/// Gives a socket's file its owner and permissions, whatever stands at its path by now.
fn own(file: &OwnedFd, access: &Access, maker: Maker<'_>) -> io::Result<()> {
    let (their_user, their_group) = maker.owner();
    let (user, group) = (access.owner.0.or(their_user), access.owner.1.or(their_group));
    if user.is_some() || group.is_some() {
        chownat(file, "", user.map(Uid::from_raw), group.map(Gid::from_raw), AtFlags::EMPTY_PATH)?;
    }
    // With an access control list of its directory the mode is another than was asked for.
    if fstat(file)?.st_mode & 0o777 != access.mode {
        let by_descriptor = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(by_descriptor, fs::Permissions::from_mode(access.mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_told_apart() {
        assert_eq!("unix:/run/a.sock".parse(), Ok(Address::Unix("/run/a.sock".into())));
        assert_eq!("127.0.0.1:9000".parse(), Ok(Address::Tcp("127.0.0.1:9000".into())));
        assert_eq!("[::1]:0".parse(), Ok(Address::Tcp("[::1]:0".into())));
        assert_eq!("fd:0".parse(), Ok(Address::STANDARD_INPUT));
        assert_eq!("fd:17".parse(), Ok(Address::Descriptor(17)));
        for wrong in [
            "",
            "unix:",
            "9000",
            ":9000",
            "host:",
            "host:99999",
            "fd:x",
            "fd:",
            "fd:-1",
            "fd:+1",
            "fd:2147483648",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
        assert!(format!("unix:/{}", "x".repeat(107)).parse::<Address>().is_err());
    }

    #[test]
    fn f55_a_live_socket_is_refused_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let access = Access { mode: 0o600, owner: (None, None) };
        let mut inherited = Inherited::default();
        let first =
            Listener::open(&Address::Unix(path.clone()), &access, Maker::new(None), &mut inherited)
                .unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused =
            Listener::open(&Address::Unix(path.clone()), &access, Maker::new(None), &mut inherited)
                .unwrap_err();
        assert!(refused.to_string().contains("already"), "{refused}");
        drop(first);
        assert!(!path.exists());
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "left behind");
        let second =
            Listener::open(&Address::Unix(path.clone()), &access, Maker::new(None), &mut inherited)
                .unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_in_a_directory_that_is_not_there_is_refused_for_that() {
        let directory = tempfile::tempdir().unwrap();
        let access = Access { mode: 0o600, owner: (None, None) };
        let address = Address::Unix(directory.path().join("run/app.sock"));
        let refused =
            Listener::open(&address, &access, Maker::new(None), &mut Inherited::default())
                .unwrap_err();
        assert!(refused.to_string().contains("its directory is not there"), "{refused}");
    }

    #[test]
    fn f55_a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        fs::write(&path, "content").unwrap();
        let access = Access { mode: 0o600, owner: (None, None) };
        let mut inherited = Inherited::default();
        assert!(
            Listener::open(&Address::Unix(path.clone()), &access, Maker::new(None), &mut inherited)
                .is_err()
        );
        assert_eq!(fs::read_to_string(path).unwrap(), "content");
    }
}
