//! A worker of a warm pool that waits for its next request.

use std::{io, os::fd::AsFd, time::Duration};

use diagnostics::message::LogMessage;
use rustix::{
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    io::{Errno, ioctl_fionbio},
    net::{SocketFlags, SocketType, accept_with, sockopt},
    process::{Pid, PidfdFlags, geteuid, getpid, pidfd_open},
};
use wire::{
    descriptors,
    launch::Launch,
    message,
    request::{
        Greeting, MAX_GREETING_BYTES, ProcessState, RequestFollows, RequestMessage,
        WARM_DESCRIPTORS,
    },
};

use crate::{
    loading::staleness::SourceWatch,
    log::Log,
    pool::serving::IDLE_CHECK_TIME,
    process::{
        SignalMask, Sigterm,
        forks::{
            Descriptor, Inventory, {self},
        },
    },
};

/// Epoll data of connections, and of SIGTERM.
const CONNECTION_EVENT: u64 = 0;
const SIGTERM_EVENT: u64 = 1;

/// How long a gateway may take to send its request after the greeting.
const HANDOFF_TIMEOUT: Duration = Duration::from_secs(5);

/// A worker that waits for its next request.
pub(super) struct IdleWorker {
    listeners: Vec<Descriptor>,
    pub(super) sigterm: Sigterm,
    /// An epoll of the listeners and `sigterm`. The kernel wakes one waiting worker for a
    /// connection. A resident pool reuses the last worker as long as one worker suffices.
    events: Descriptor,
    process: Descriptor,
    pub(super) source_watch: SourceWatch,
    supervisor: Option<Pid>,
    /// The inventory of the descriptors above.
    inventory: Inventory,
    /// A request was served since the inventory was last checked.
    pub(super) has_served: bool,
}

/// A request that this worker has accepted.
pub(super) struct AcceptedRequest {
    pub(super) connection: Descriptor,
    pub(super) gateway: Pid,
    pub(super) message: RequestMessage,
    pub(super) process: ProcessState,
    pub(super) descriptors: [Descriptor; WARM_DESCRIPTORS - 1],
}

impl IdleWorker {
    /// Waits for requests on `listeners`. SIGTERM is recorded from here on.
    pub(super) fn new(
        listeners: Vec<Descriptor>,
        source_watch: SourceWatch,
        (launch, mask): (&Launch, &SignalMask),
    ) -> io::Result<Self> {
        let events = Descriptor::made(|| epoll::create(epoll::CreateFlags::CLOEXEC))?;
        for listener in &listeners {
            // Another worker may accept the connection first.
            ioctl_fionbio(listener, true)?;
            let flags = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
            epoll::add(&events, listener, epoll::EventData::new_u64(CONNECTION_EVENT), flags)?;
        }
        let process = process_descriptor()?;
        let (sigterm, supervisor) = (Sigterm::listen(mask)?, Pid::from_raw(launch.gateway_pid));
        epoll::add(
            &events,
            &sigterm,
            epoll::EventData::new_u64(SIGTERM_EVENT),
            epoll::EventFlags::IN,
        )?;
        let needed = listeners.iter().map(AsFd::as_fd).chain([
            events.as_fd(),
            process.as_fd(),
            sigterm.as_fd(),
        ]);
        let inventory = Inventory::of(needed);
        Ok(Self {
            listeners,
            sigterm,
            events,
            process,
            source_watch,
            supervisor,
            inventory,
            has_served: false,
        })
    }

    /// Waits for a request; `None` if this process has to exit.
    pub(super) fn request(&mut self) -> Option<AcceptedRequest> {
        loop {
            let nothing = epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(CONNECTION_EVENT),
            };
            let mut events = [nothing; 2];
            let look = self
                .has_served
                .then_some(IDLE_CHECK_TIME)
                .and_then(|time| Timespec::try_from(time).ok());
            let count = match epoll::wait(&self.events, &mut events, look.as_ref()) {
                Ok(0) if self.has_served => {
                    if self.has_lost() {
                        return None;
                    }
                    continue;
                }
                Ok(count) => count,
                Err(Errno::INTR) => 0,
                // The application has closed the descriptor in an earlier request.
                Err(_) => return None,
            };
            if self.has_lost() {
                return None;
            }
            // Accepts even after SIGTERM: the kernel woke no other worker for this connection.
            for listener in &self.listeners {
                match Descriptor::made(|| accept_with(listener, SocketFlags::CLOEXEC)) {
                    Ok(connection) => {
                        if let Some(accepted) = self.greet(connection) {
                            return Some(accepted);
                        }
                    }
                    // Another worker was faster, or the gateway has closed the connection.
                    Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                    // The application has closed the listener, or no descriptor is free. Another
                    // worker serves the request.
                    Err(_) => return None,
                }
            }
            // The pool stops when its socket is closed.
            let is_end = |event: &epoll::Event| {
                let flags = event.flags;
                event.data.u64() == SIGTERM_EVENT || flags.contains(epoll::EventFlags::HUP)
            };
            if events[..count].iter().any(is_end) {
                return None;
            }
        }
    }

    /// Has the application closed or replaced a descriptor that the next request needs? Logs the
    /// loss.
    fn has_lost(&mut self) -> bool {
        if !std::mem::take(&mut self.has_served) || self.inventory.lost().is_empty() {
            return false;
        }
        let which = "this process cannot serve any more, and another takes its place";
        Log::without_request("worker").write(&LogMessage::descriptors_lost(which));
        true
    }

    /// Offers to serve the connected gateway. `None` if the gateway has another user or closed the
    /// connection, or if the code is stale.
    fn greet(&self, connection: Descriptor) -> Option<AcceptedRequest> {
        let gateway = sockopt::socket_peercred(&connection).ok()?;
        if gateway.uid != geteuid() {
            return None;
        }
        let stale = self.source_watch.is_stale();
        let pid = getpid().as_raw_nonzero().get();
        let greeting = message::encode(&Greeting { pid, stale }).ok()?;
        descriptors::send(&connection, &greeting, &[self.process.as_fd()]).ok()?;
        if stale {
            self.source_watch.request_reload(self.supervisor);
            return None;
        }
        let mut watched = [PollFd::new(&connection, PollFlags::IN)];
        let timeout = Timespec::try_from(HANDOFF_TIMEOUT).ok()?;
        while let Err(Errno::INTR) = poll(&mut watched, Some(&timeout)) {}
        let descriptors = forks::without_forks(|| {
            let mut packet = [0; MAX_GREETING_BYTES];
            let received = descriptors::receive(&connection, &mut packet)?;
            let RequestFollows =
                message::decode(&packet[..received.length]).map_err(io::Error::other)?;
            let descriptors = received.descriptors.into_iter().map(Descriptor::from);
            Ok::<_, io::Error>(descriptors.collect::<Vec<_>>())
        });
        let [body, response, errors, file, gateway_pipe] =
            <[Descriptor; WARM_DESCRIPTORS]>::try_from(descriptors.ok()?).ok()?;
        let mut message: RequestMessage = message::decode(&message::read_file(&file).ok()?).ok()?;
        let process = message.process.take()?;
        Some(AcceptedRequest {
            connection,
            gateway: gateway.pid,
            message,
            process,
            descriptors: [body, response, errors, gateway_pipe],
        })
    }
}

/// A descriptor that becomes readable when this process exits.
fn process_descriptor() -> io::Result<Descriptor> {
    if let Ok(process) = Descriptor::made(|| pidfd_open(getpid(), PidfdFlags::empty())) {
        return Ok(process);
    }
    // The kernel is older than Linux 5.3, or a filter forbids the call. The other end of this
    // socket exists only in this process, so the kernel closes it at exit.
    let (theirs, ours) = forks::pair(SocketType::STREAM)?;
    std::mem::forget(ours);
    Ok(theirs)
}
