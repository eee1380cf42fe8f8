//! Bytes that are almost FastCGI.

use std::collections::VecDeque;

use crate::support::{
    fastcgi_client::{FastcgiConnection, FastcgiRequest},
    random::Random,
};

/// Sends noise over connections, some of which stay open.
pub(crate) struct Disturbance {
    open: VecDeque<FastcgiConnection>,
    most: usize,
}

impl Disturbance {
    /// Leaves `most` connections open at a time.
    pub(crate) fn new(most: usize) -> Self {
        Self { open: VecDeque::new(), most }
    }

    /// Sends one piece of noise of each kind. The other end may close a connection before all bytes
    /// are sent.
    pub(crate) fn send(&mut self, random: &mut Random, connect: impl Fn() -> FastcgiConnection) {
        let connection = connect();
        let _ = connection.try_send(&noise(random));
        self.open.push_back(connection);
        if self.open.len() > self.most {
            self.open.remove(random.below(self.open.len()));
        }
        // A request without the rest of its body occupies a thread while its connection is open.
        let _ = connect().try_send(&cut(random));
        let _ = connect().try_send(&changed(random));
    }

    /// Closes all connections.
    pub(crate) fn close(&mut self) {
        self.open.clear();
    }
}

/// Bytes that mean nothing; every other time they look like a record at first.
fn noise(random: &mut Random) -> Vec<u8> {
    let length = random.below(2000);
    let mut noise = random.bytes(length);
    if noise.len() > 8 && random.below(2) == 0 {
        let header = [1, 1 + noise[1] % 12, 0, noise[3] % 2];
        noise[..4].copy_from_slice(&header);
    }
    noise
}

/// A request that ends anywhere.
fn cut(random: &mut Random) -> Vec<u8> {
    let mut bytes = request(random);
    let length = random.below(bytes.len());
    bytes.truncate(length);
    bytes
}

/// A request with a byte that is not its own.
fn changed(random: &mut Random) -> Vec<u8> {
    let mut bytes = request(random);
    let position = random.below(bytes.len());
    bytes[position] = random.bytes(1)[0];
    bytes
}

fn request(random: &mut Random) -> Vec<u8> {
    let length = random.below(300);
    FastcgiRequest::post("/noise", random.bytes(length)).bytes()
}
