//! Changes of files, as curl and Chromium see them.

use std::{
    fs,
    time::{Duration, Instant},
};

use crate::{
    serve::Serve,
    support::{
        browser::Browser,
        web_servers::{HttpClient, eventually},
    },
};

/// A Flask application with a page, a module, a template and a variable of its own.
const FLASK: &str = "
    import os
    from flask import Flask, render_template
    import words
    app = Flask(__name__)

    @app.route('/')
    def index():
        return render_template('page.html', word=words.WORD, colour=os.environ.get('COLOUR'))
    ";

fn flask(args: &[&str]) -> Serve {
    let serve = Serve::start("", args);
    fs::create_dir(serve.path("templates")).unwrap();
    serve.write("words.py", "WORD = 'one'\n");
    serve.write("shop.env", "");
    serve.write("templates/page.html", "<title>{{ word }}</title><p>{{ word }} {{ colour }}</p>\n");
    serve.write("app.py", FLASK);
    eventually("the application is loaded", || serve.get("/").status == 200);
    serve
}

/// The page as soon as it holds `text`.
fn await_page(serve: &Serve, text: &str) {
    eventually(&format!("the page holds {text}"), || serve.get("/").text().contains(text));
}

#[test]
fn a_module_a_template_and_a_file_of_variables_are_loaded_again() {
    let serve = flask(&["--env-file", "shop.env"]);
    await_page(&serve, "one None");
    serve.write("shop.env", "COLOUR=red\n");
    await_page(&serve, "one red");
    serve.write("words.py", "WORD = 'two'\n");
    await_page(&serve, "two red");
    serve.write("templates/page.html", "<title>{{ word }}</title><b>{{ word }}!</b>\n");
    await_page(&serve, "<b>two!</b>");
    // A new package in a new directory.
    fs::create_dir(serve.path("more")).unwrap();
    serve.write("more/__init__.py", "WORD = 'three'\n");
    serve.write("words.py", "from more import WORD\n");
    await_page(&serve, "three");
    serve.write("more/__init__.py", "WORD = 'four'\n");
    await_page(&serve, "four");
    serve.stop();
}

#[test]
fn saves_of_one_size_in_one_second_are_not_confused() {
    let serve = flask(&[]);
    for word in ["aaa", "bbb", "ccc", "ddd", "eee", "fff"] {
        serve.write("words.py", &format!("WORD = '{word}'\n"));
        await_page(&serve, word);
    }
    serve.stop();
}

#[test]
fn a_syntax_error_is_shown_and_heals_by_itself() {
    let serve = flask(&[]);
    serve.write("words.py", "WORD = = 1\n");
    eventually("the page shows the error", || {
        let page = serve.get("/");
        page.status == 500 && page.text().contains("SyntaxError") && page.text().contains("W0301")
    });
    serve.write("words.py", "WORD = '<script>alert(1)</script>'; 1 / 0\n");
    eventually("the page shows the error", || serve.get("/").text().contains("ZeroDivisionError"));
    let page = serve.get("/").text();
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
    serve.write("words.py", "WORD = 'healed'\n");
    await_page(&serve, "healed");
    serve.stop();
}

#[test]
fn an_error_with_another_cause_heals_at_a_later_request() {
    let serve = flask(&[]);
    serve.write("words.py", "WORD = open('data').read()\n");
    eventually("the page shows the error", || serve.get("/").status == 500);
    // No file of the application.
    serve.write("data", "data");
    await_page(&serve, "data");
    serve.stop();
}

#[test]
fn a_request_right_after_a_save_sees_the_new_code() {
    let code = |number: usize| {
        format!(
            "
            def app(environ, start_response):
                start_response('200 OK', [('Content-Type', 'text/plain')])
                return [b'code {number}']
            "
        )
    };
    let serve = Serve::start(&code(0), &[]);
    serve.get("/").expect(200);
    for number in 1..10 {
        // The second save comes before the code of the first one may be loaded again.
        for number in [number * 10, number * 10 + 1] {
            serve.write("app.py", &code(number));
            let request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let text = serve.exchange(request);
            assert!(text.ends_with(&format!("code {number}")), "{number}: {text}");
        }
    }
    serve.stop();
}

#[test]
fn requests_of_old_code_are_completed() {
    let serve = flask(&[]);
    serve.write(
        "app.py",
        "
        import time
        def app(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            yield b'old'
            time.sleep(1)
            yield b' code'
        ",
    );
    await_page(&serve, "old");
    let mut stream = HttpClient::get(serve.url("/")).stream();
    stream.read_until("old");
    serve.write(
        "app.py",
        "
        def app(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [b'new']
        ",
    );
    await_page(&serve, "new");
    assert_eq!(stream.finish(), ("old code".to_owned(), true));
    serve.stop();
}

#[test]
fn a_template_that_is_edited_fifty_times_a_second_leaves_a_server_that_answers() {
    let serve = flask(&[]);
    let start = Instant::now();
    let mut number = 0;
    let (_sender, pause): (_, std::sync::mpsc::Receiver<()>) = std::sync::mpsc::channel();
    while start.elapsed() < Duration::from_secs(3) {
        number += 1;
        serve.write("templates/page.html", &format!("<p>edit {number}</p>"));
        if number % 10 == 0 {
            serve.get("/").expect(200);
        }
        let _ = pause.recv_timeout(Duration::from_millis(20));
    }
    await_page(&serve, &format!("edit {number}<"));
    let processes = crate::support::pool::children(serve.running.pid().as_raw_nonzero().get());
    assert!(processes.len() < 4, "{processes:?}");
    serve.stop();
}

#[test]
fn the_page_in_chromium_follows_each_change() {
    let serve = flask(&[]);
    let mut browser = Browser::start();
    browser.open(&serve.url("/"));
    let mut times = Vec::new();
    let word = |number: usize| format!("word {number}");
    for number in 0..5 {
        let is_shown = format!("document.title === '{}'", word(number));
        let start = Instant::now();
        serve.write("words.py", &format!("WORD = '{}'\n", word(number)));
        while browser.value(&is_shown) != true {
            assert!(start.elapsed() < Duration::from_secs(60), "{number}");
        }
        times.push(start.elapsed());
    }
    times.sort();
    assert!(times[0] < Duration::from_secs(2), "{times:?}");
    serve.write("words.py", "WORD =\n");
    eventually("the error is shown", || {
        browser.value("document.body?.textContent.includes('SyntaxError')") == true
    });
    serve.write("words.py", "WORD = 'healed'\n");
    eventually("the page heals", || browser.value("document.title === 'healed'") == true);
    serve.stop();
}

#[test]
fn only_pages_for_a_browser_are_changed_and_none_without_the_option() {
    let page = |serve: &Serve, accept: &str| {
        HttpClient::get(serve.url("/")).header("Accept", accept).run().expect(200)
    };
    let serve = flask(&[]);
    let own = serve.get("/").text();
    assert!(!own.contains(".wsgate"), "{own}");
    let shown = page(&serve, "text/html,*/*");
    assert!(shown.text().starts_with(&own) && shown.text().contains(".wsgate/live.js"));
    assert_eq!(shown.header("content-length"), shown.body.len().to_string());
    for (destination, is_changed) in [("document", true), ("empty", false), ("script", false)] {
        let client = HttpClient::get(serve.url("/")).header("Accept", "text/html");
        let shown = client.header("Sec-Fetch-Dest", destination).run().expect(200);
        assert_eq!(shown.text().contains(".wsgate"), is_changed, "{destination}");
    }
    let log = serve.stop().stderr;
    assert!(!log.contains(".wsgate"), "{log}");
    let serve = flask(&["--no-live"]);
    assert_eq!(page(&serve, "text/html").text(), own);
    assert_eq!(serve.get("/.wsgate/live.js").status, 404);
    serve.stop();
}
