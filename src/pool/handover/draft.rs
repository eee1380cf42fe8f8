//! Writes the state that is handed over, and lets the next program inherit its descriptors.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
        unix::{
            fs::FileExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    io::{FdFlags, fcntl_setfd},
    process::Pid,
};
use wire::connection_queue::{ConnectionQueue, QueuedConnection};

use crate::pool::{
    handover::{ControlState, Handover, SocketState, TemplateState, VERSION},
    listeners::Listener,
};

/// A state that is being written, with the descriptors that it names.
#[derive(Debug, Default)]
pub(in crate::pool) struct Draft<'a> {
    pub(in crate::pool) state: Handover,
    descriptors: Vec<BorrowedFd<'a>>,
}

/// A state that the next program inherits, as long as this value exists.
#[derive(Debug)]
pub(in crate::pool) struct Inheritance<'a> {
    file: OwnedFd,
    result: Option<BorrowedFd<'a>>,
    descriptors: Vec<BorrowedFd<'a>>,
}

impl<'a> Draft<'a> {
    /// Adds a listening socket.
    pub(in crate::pool) fn add_listener(&mut self, listener: &'a Listener) {
        let socket = self.socket_state(listener);
        self.state.sockets.push(socket);
    }

    /// Adds the listening socket of the status page.
    pub(in crate::pool) fn add_status_listener(&mut self, listener: &'a Listener) {
        let socket = self.socket_state(listener);
        self.state.status_socket = Some(socket);
    }

    fn socket_state(&mut self, listener: &'a Listener) -> SocketState {
        SocketState {
            descriptor: self.add(listener.socket.as_fd()),
            address: listener.address.clone(),
            file: listener.file().cloned(),
        }
    }

    /// Adds the connection queue.
    pub(in crate::pool) fn add_queue(&mut self, queue: &'a ConnectionQueue) {
        let [push_end, pop_end] = queue.descriptors();
        self.state.queue = Some((self.add(push_end), self.add(pop_end)));
    }

    /// Adds the supervisor's side of a queue that limits how long requests wait.
    pub(in crate::pool) fn add_relay(&mut self, relay: &'a ConnectionQueue) {
        let [push_end, pop_end] = relay.descriptors();
        self.state.relay = Some((self.add(push_end), self.add(pop_end)));
    }

    /// Adds a connection that the supervisor holds.
    pub(in crate::pool) fn add_held(&mut self, connection: &'a QueuedConnection) {
        let socket = self.add(connection.socket.as_fd());
        self.state.held.push((socket, connection.history.to_byte()));
    }

    /// Adds an open log.
    pub(in crate::pool) fn add_log(&mut self, path: &Path, file: BorrowedFd<'a>) {
        let file = self.add(file);
        self.state.logs.push((path.to_owned(), file));
    }

    /// Adds the control socket at `path`, its connections without a command, and the clients that
    /// wait for the end of the upgrade.
    pub(in crate::pool) fn add_control(
        &mut self,
        listener: &'a UnixListener,
        path: &Path,
        silent: &'a [UnixStream],
        waiting: &'a [UnixStream],
    ) {
        self.state.control = Some(ControlState {
            listener: self.add(listener.as_fd()),
            path: path.to_owned(),
            silent: silent.iter().map(|stream| self.add(stream.as_fd())).collect(),
            waiting: waiting.iter().map(|stream| self.add(stream.as_fd())).collect(),
        });
    }

    /// Adds a template process.
    pub(in crate::pool) fn add_template(
        &mut self,
        pid: Pid,
        generation: u64,
        channel: Option<BorrowedFd<'a>>,
        gateway_pipe: BorrowedFd<'a>,
    ) {
        let template = TemplateState {
            pid: pid.as_raw_nonzero().get(),
            generation,
            channel: channel.map(|channel| self.add(channel)),
            gateway_pipe: self.add(gateway_pipe),
        };
        self.state.templates.push(template);
    }

    fn add(&mut self, descriptor: BorrowedFd<'a>) -> RawFd {
        self.descriptors.push(descriptor);
        descriptor.as_raw_fd()
    }

    /// Lets the next program inherit the state. In a trial, `result` receives the result.
    ///
    /// # Errors
    /// If memory or descriptors are short, or a path is not UTF-8.
    pub(in crate::pool) fn pass(
        mut self,
        result: Option<BorrowedFd<'a>>,
    ) -> io::Result<Inheritance<'a>> {
        self.state.version = VERSION;
        let file = File::from(memfd_create("wsgate-upgrade", MemfdFlags::empty())?);
        file.write_all_at(&serde_json::to_vec(&self.state)?, 0)?;
        self.descriptors.extend(result);
        let inheritance = Inheritance { file: file.into(), result, descriptors: self.descriptors };
        inheritance.set_flags(FdFlags::empty())?;
        Ok(inheritance)
    }
}

impl Inheritance<'_> {
    /// The value of `WSGATE_UPGRADE`.
    pub(in crate::pool) fn variable(&self) -> OsString {
        let file = self.file.as_raw_fd();
        self.result
            .map_or_else(|| file.to_string(), |it| format!("{file}:{}", it.as_raw_fd()))
            .into()
    }

    fn set_flags(&self, flags: FdFlags) -> io::Result<()> {
        self.descriptors.iter().try_for_each(|descriptor| Ok(fcntl_setfd(descriptor, flags)?))
    }
}

impl Drop for Inheritance<'_> {
    fn drop(&mut self) {
        // Processes that need one of these are started with the flag cleared again.
        let _ = self.set_flags(FdFlags::CLOEXEC);
    }
}
