//! Zope: documents are added over a file that one process owns, and over a ZEO server by several
//! processes at once.

use std::{
    fs,
    os::unix::net::UnixStream,
    process::{Child, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    packages::set_up,
    support::web_servers::{
        Apache, ApacheSetup, CgiModule, HttpClient, HttpResponse, Lighttpd, Nginx, WebServer,
        WebSite, eventually, venv, wait_for_exit,
    },
};

/// Makes an instance with a manager, over the storage that its configuration names.
const MAKE_INSTANCE: &str = r#"
import os, shutil, sys
home = sys.argv[1]
import Zope2.utilities
skeleton = os.path.join(os.path.dirname(Zope2.utilities.__file__), "skel", "etc", "site.zcml")
shutil.copy(skeleton, os.path.join(home, "etc"))
from Zope2.Startup.run import configure_wsgi
configure_wsgi(os.path.join(home, "zope.conf"))
import transaction, Zope2
application = Zope2.app()
application.acl_users._doAddUser("ada", "lovelace", ["Manager"], [])
for folder in "north", "south":
    application.manage_addFolder(folder)
    listing = "<dtml-in objectIds><dtml-var sequence-item> </dtml-in>"
    application[folder].manage_addDTMLMethod("list", file=listing)
transaction.commit()
application._p_jar.close()
"#;

/// Makes an instance, over a storage that is described as in a configuration.
fn make_instance(web_server: &dyn WebServer, storage: &str) {
    let home = web_server.site().path("var/zope");
    let home = home.to_str().unwrap();
    set_up(
        web_server,
        "python",
        &["-c", "import os, sys; os.makedirs(sys.argv[1] + '/etc')", home],
    );
    set_up(web_server, "python", &["-c", "import os, sys; os.mkdir(sys.argv[1] + '/var')", home]);
    let configuration = format!("{storage}instancehome {home}\n");
    fs::write(web_server.site().path("var/zope/zope.conf"), configuration).unwrap();
    set_up(web_server, "python", &["-c", MAKE_INSTANCE, home]);
}

/// Adds a document to a folder; `more` are further fields of the form.
fn add(folder: &str, id: &str, more: &str) -> HttpResponse {
    let url = format!("{folder}/manage_addProduct/OFSP/manage_addDTMLDocument");
    HttpClient::post(url, &format!("id={id}&file=Text+of+{id}{more}")).auth("ada", "lovelace").run()
}

/// Waits until the folder has these documents and no other ones. A process learns a little later
/// what another process has committed.
#[track_caller]
fn await_documents(folder: &str, ids: &[String]) {
    let documents = || {
        let text = HttpClient::get(format!("{folder}/list")).run().expect(200).text();
        let ids = text.split_whitespace().filter(|&id| id != "list");
        let mut ids: Vec<String> = ids.map(str::to_owned).collect();
        ids.sort_unstable();
        ids
    };
    eventually(&format!("{folder} has {ids:?}, not {:?}", documents()), || documents() == ids);
}

/// A file is owned by one process at a time, which holds a lock on it.
fn documents_in_a_file_persist(web_server: &mut dyn WebServer) {
    let data = web_server.site().path("var/zope/var/Data.fs");
    let storage = format!("<filestorage>\npath {}\n</filestorage>\n", data.display());
    make_instance(web_server, &format!("<zodb_db main>\n{storage}mount-point /\n</zodb_db>\n"));
    let folder = web_server.script("zope.wsgi/north");
    let ids = ["doc1", "doc2", "doc3"].map(str::to_owned);
    for id in &ids {
        add(&folder, id, "").expect(302);
        let text = HttpClient::get(format!("{folder}/{id}")).run().expect(200).text();
        assert_eq!(text.trim(), format!("Text of {id}"));
    }
    await_documents(&folder, &ids);
}

/// A ZEO server, which owns the file for all processes.
struct Zeo(Child);

impl Zeo {
    fn start(web_server: &dyn WebServer) -> Self {
        let socket = web_server.site().path("var/zeo.sock");
        let mut command = web_server.site().as_server(venv().join("bin/runzeo"));
        command.arg("-a").arg(&socket).arg("-f").arg(web_server.site().path("var/Data.fs"));
        let log = fs::File::create(web_server.site().path("run/zeo.log")).unwrap();
        let zeo =
            Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap());
        eventually("the ZEO server listens", || UnixStream::connect(&socket).is_ok());
        zeo
    }
}

impl Drop for Zeo {
    fn drop(&mut self) {
        // The server may have exited by itself, which a test reports.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        wait_for_exit(self.0.id().cast_signed());
        let _ = self.0.wait();
    }
}

/// Two clients add documents at once, each to a folder of its own.
fn documents_of_several_processes_persist(web_server: &mut dyn WebServer) {
    let _zeo = make_instance_over_zeo(web_server);
    add_at_once(["north", "south"].map(|folder| web_server.script(&format!("zope.wsgi/{folder}"))));
}

/// Two clients add documents at once to the same folder: one of them has a conflict, and its
/// request is tried again.
fn conflicting_documents_persist(web_server: &mut dyn WebServer) {
    let _zeo = make_instance_over_zeo(web_server);
    let folder = web_server.script("zope.wsgi/north");
    // This request has a conflict for certain, and its body is read again.
    add(&web_server.script("zope.wsgi/south"), "again", "&conflict=yes").expect(302);
    eventually("the log tells of another try", || web_server.log().contains("retried again"));
    add_at_once([folder.clone(), folder]);
}

fn make_instance_over_zeo(web_server: &dyn WebServer) -> Zeo {
    let zeo = Zeo::start(web_server);
    let storage = format!(
        "<zeoclient>\nserver {}\n</zeoclient>\n",
        web_server.site().path("var/zeo.sock").display()
    );
    make_instance(
        web_server,
        &format!("%import ZEO\n<zodb_db main>\n{storage}mount-point /\n</zodb_db>\n"),
    );
    zeo
}

/// Two clients add documents at once, each to a folder, and these have all of them in the end.
fn add_at_once(folders: [String; 2]) {
    thread::scope(|scope| {
        for (folder, client) in folders.iter().zip(1..) {
            scope.spawn(move || {
                for number in 1..=3 {
                    add(folder, &format!("doc{client}{number}"), "").expect(302);
                }
            });
        }
    });
    for (folder, client) in folders.iter().zip(1..) {
        let clients = if folders[0] == folders[1] { vec![1, 2] } else { vec![client] };
        let ids = clients
            .iter()
            .flat_map(|client| (1..=3).map(move |number| format!("doc{client}{number}")));
        await_documents(folder, &ids.collect::<Vec<_>>());
    }
}

mod cgi_handler {
    use super::{ApacheSetup, CgiModule, Lighttpd, WebSite};

    #[test]
    fn documents_in_a_file_persist() {
        let site = WebSite::under_cgi_handler();
        super::documents_in_a_file_persist(&mut super::Apache::start(
            CgiModule::Cgid,
            ApacheSetup::ScriptAlias,
            site,
        ));
    }

    #[test]
    fn documents_of_several_processes_persist() {
        super::documents_of_several_processes_persist(&mut Lighttpd::over(
            WebSite::under_cgi_handler(),
        ));
    }
}

mod cold {
    use super::{Apache, CgiModule, Lighttpd};

    #[test]
    fn documents_in_a_file_persist() {
        super::documents_in_a_file_persist(&mut Apache::with(CgiModule::Cgid));
    }

    #[test]
    fn documents_of_several_processes_persist() {
        super::documents_of_several_processes_persist(&mut Lighttpd::start());
    }
}

mod warm {
    use super::{Apache, ApacheSetup, CgiModule, Lighttpd, WebSite};

    #[test]
    fn documents_in_a_file_persist() {
        let site = WebSite::of_mode("warm");
        super::documents_in_a_file_persist(&mut Apache::start(
            CgiModule::Cgid,
            ApacheSetup::ScriptAlias,
            site,
        ));
    }

    #[test]
    fn documents_of_several_processes_persist() {
        super::documents_of_several_processes_persist(&mut Lighttpd::over(WebSite::of_mode(
            "warm",
        )));
    }
}

mod resident {
    use super::{Apache, ApacheSetup, CgiModule, Lighttpd, WebSite};

    #[test]
    fn documents_in_a_file_persist() {
        let site = WebSite::of_mode("resident");
        super::documents_in_a_file_persist(&mut Apache::start(
            CgiModule::Cgid,
            ApacheSetup::ScriptAlias,
            site,
        ));
    }

    #[test]
    fn documents_of_several_processes_persist() {
        super::documents_of_several_processes_persist(&mut Lighttpd::over(WebSite::of_mode(
            "resident",
        )));
    }
}

mod pool {
    use super::Nginx;

    /// The open files of Zope prevent forking. The audit that finds them takes ten times as long as
    /// loading Zope.
    const NOT_PRELOADED: [&str; 2] = ["--preload", "no"];

    #[test]
    fn documents_in_a_file_persist() {
        let mut web_server =
            Nginx::with_words(&["--workers", "1", "--threads", "4", "--preload", "no"]);
        super::documents_in_a_file_persist(&mut web_server);
    }

    #[test]
    fn documents_of_several_processes_persist() {
        super::documents_of_several_processes_persist(&mut Nginx::with_words(&NOT_PRELOADED));
    }

    #[test]
    fn conflicting_documents_persist() {
        super::conflicting_documents_persist(&mut Nginx::with_words(&NOT_PRELOADED));
    }
}
