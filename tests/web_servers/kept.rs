//! Connections between a web server and the processes behind it: kept where the server can.

use std::{collections::BTreeSet, fs};

use crate::{
    support::web_servers::{HttpClient, WebServer, eventually},
    web_servers::behind_every_fastcgi_web_server,
};

behind_every_fastcgi_web_server! {
    requests_share_a_connection_where_the_server_keeps_one
}

/// The accepted connections to what is behind the front, by inode.
fn connections(web_server: &dyn WebServer) -> BTreeSet<u64> {
    let directory = web_server.site().path("").display().to_string();
    // Behind proc(5)'s heading: number, references, protocol, flags, type, state, inode, path.
    // State 3 is connected; a connection has the path of the socket that it was accepted from, and
    // no inode before it is accepted.
    let unix = fs::read_to_string("/proc/net/unix").unwrap();
    let unix = unix.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let is_ours = fields.get(7)?.starts_with(&directory) && fields[5] == "03";
        is_ours.then(|| fields[6].parse().unwrap())
    });
    // Number, local address, remote address, state, four columns more, the time-out, inode. State 1
    // is established.
    let tcp = fs::read_to_string("/proc/net/tcp").unwrap();
    let tcp = tcp.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let port = u16::from_str_radix(fields[1].split_once(':')?.1, 16).ok()?;
        let is_ours = web_server.ports().contains(&port) && fields[3] == "01";
        is_ours.then(|| fields[9].parse().unwrap())
    });
    unix.chain(tcp).filter(|&inode| inode != 0).collect()
}

fn requests_share_a_connection_where_the_server_keeps_one(web_server: &mut dyn WebServer) {
    let keeps = web_server.habits().keeps_connections;
    let mut seen = BTreeSet::new();
    for _ in 0..12 {
        HttpClient::get(web_server.script("hello.wsgi")).run().expect(200);
        if keeps {
            seen.extend(connections(web_server));
        } else {
            eventually("the connection is closed behind its request", || {
                connections(web_server).is_empty()
            });
        }
    }
    if keeps {
        // Apache has a few processes with connections of their own, HAProxy a few threads.
        assert!((1..=6).contains(&seen.len()), "12 requests came over {} connections", seen.len());
        let open = connections(web_server);
        assert!(!open.is_empty() && open.is_subset(&seen), "{open:?} of {seen:?}");
    }
}
