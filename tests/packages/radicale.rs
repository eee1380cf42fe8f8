//! Radicale: a calendar in the directory that its configuration file names.

use std::fs;

use crate::{
    packages::in_every_mode,
    support::web_servers::{HttpClient, WebServer},
};

in_every_mode! {
    an_event_is_put_found_and_read
}

const EVENT: &str = "BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//wsgate//tests//EN\r\nBEGIN:VEVENT\r\nUID:number\r\n\
    DTSTAMP:20261130T120000Z\r\nDTSTART:20261201T090000Z\r\nSUMMARY:Caf\u{e9}\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n";

fn an_event_is_put_found_and_read(web_server: &mut dyn WebServer) {
    let (configuration, folder) =
        (web_server.site().path("var/radicale.conf"), web_server.site().path("var/collections"));
    let text =
        format!("[auth]\ntype = none\n[storage]\nfilesystem_folder = {}\n", folder.display());
    fs::write(configuration, text).unwrap();

    let calendar = web_server.script("radicale.wsgi/ada/calendar/");
    HttpClient::request("MKCOL", web_server.script("radicale.wsgi/ada/"), "").run().expect(201);
    HttpClient::request("MKCALENDAR", &calendar, "").run().expect(201);
    for number in 1..=4 {
        let event = EVENT.replace("UID:number", &format!("UID:{number}"));
        let url = format!("{calendar}{number}.ics");
        HttpClient::request("PUT", &url, &event)
            .header("Content-Type", "text/calendar")
            .run()
            .expect(201);
        let read = HttpClient::get(&url).run().expect(200);
        assert!(read.text().contains("SUMMARY:Caf\u{e9}"), "{read:?}");

        let find = "<propfind xmlns=\"DAV:\"><prop><getetag/></prop></propfind>";
        let found = HttpClient::request("PROPFIND", &calendar, find)
            .header("Depth", "1")
            .run()
            .expect(207)
            .text();
        for earlier in 1..=number {
            let address = format!("/cgi-bin/radicale.wsgi/ada/calendar/{earlier}.ics</href>");
            assert!(found.contains(&address), "{found}");
        }
        assert!(found.contains(read.header("etag").trim_matches('"')), "{found}");
    }
    assert!(
        folder.join("collection-root/ada/calendar/4.ics").exists(),
        "not where the configuration says"
    );
}
