//! Commands of curl that are copied from developer tools, and mistakes in its options.

use crate::{
    call::{
        Shell,
        curl::{RECEIVER, request},
    },
    support::child_process,
};

#[test]
fn wrong_values_are_refused_with_the_next_step() {
    let shell = Shell::new();
    for (args, said) in [
        (&["-F", "x"][..], "write NAME=TEXT or NAME=@FILE"),
        (&["-F", "x=y;z"], "--form-string sends a value with `;`"),
        (&["-F", "x=@"], "`@` names no file"),
        (&["-F", "a=b", "-d", "c"], "cannot be used with"),
        (&["-I", "-d", "c"], "add -G, or leave out -I"),
        (&["-G", "-F", "a=b"], "-F has no effect with -G"),
        (&["-w", "%{nothing}"], "`%{nothing}` is no variable of --write-out"),
        (&["-O"], "has no name of a file at its end"),
        (&["-o", "a", "-O", "/b"], "cannot be used with"),
        (&["-m", "1.x"], "invalid value '1.x'"),
        (&["-A", "a\nb"], "is not the value of a header"),
        (&["-H", "no header"], "write `Name: value`"),
        (&["-b", "a=b\n"], "a cookie has no control characters"),
    ] {
        let ended = shell.run(&[&["environ.wsgi"], args].concat());
        let found = (ended.code(), &*ended.text());
        assert_eq!(found, (Some(2), ""), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(said), "{args:?}: {}", ended.stderr);
    }
    for args in [&["-F", "x=@absent"], &["-w", "@absent"], &["-H", "@absent"], &["-d", "@absent"]] {
        let ended = shell.run(&[&["environ.wsgi"], &args[..]].concat());
        assert_eq!((ended.code(), &*ended.text()), (Some(78), ""), "{args:?}: {}", ended.stderr);
        assert!(ended.stderr.contains("absent"), "{args:?}: {}", ended.stderr);
    }
}

/// Commands as developer tools of browsers copy them, with `wsgate call APP` in place of `curl`.
#[test]
fn a_command_copied_from_a_browser_runs() {
    let shell = Shell::new();
    shell.file("receiver.wsgi", RECEIVER);
    // Chromium 141, Firefox 143.
    let chromium = r#"call receiver.wsgi 'https://shop.example:8443/order?id=7' \
  -H 'accept: text/html,application/xhtml+xml;q=0.9,*/*;q=0.8' \
  -H 'content-type: application/x-www-form-urlencoded' \
  -b 'session=abc; theme=dark' \
  -H 'sec-ch-ua: "Chromium";v="141", "Not?A_Brand";v="8"' \
  -H 'user-agent: Mozilla/5.0 (X11; Linux x86_64)' \
  --data-raw $'name=O\'Brien\u0021&text=a\r\nb' \
  --compressed \
  --insecure"#;
    let firefox = r"call receiver.wsgi 'https://shop.example:8443/order?id=7' \
  --compressed \
  -X POST \
  --http2 \
  -H 'Accept-Encoding: gzip, deflate, br, zstd' \
  -H 'Content-Type: application/x-www-form-urlencoded' \
  -H 'Cookie: session=abc; theme=dark' \
  -H 'Priority: u=0, i' \
  --data-raw $'name=O\'Brien\u0021&text=a\r\nb'";
    for (text, ignored) in [(chromium, "--insecure"), (firefox, "--http2")] {
        let script = format!("{} {text}", shell.dir.wsgate().display());
        let mut command = shell.command("bash".as_ref(), &["-c", &script]);
        let ended = child_process::run(command.env("LC_ALL", "C.UTF-8"), "");
        assert_eq!(ended.code(), Some(0), "{}", ended.stderr);
        assert!(ended.stderr.starts_with("wsgate: notice[W0910]: "), "{}", ended.stderr);
        assert!(
            ended.stderr.contains(&format!("{ignored} of curl is ignored: ")),
            "{}",
            ended.stderr
        );
        let seen = request(&ended);
        for (name, value) in [
            ("REQUEST_METHOD", "POST"),
            ("HTTP_HOST", "shop.example:8443"),
            ("SERVER_PORT", "8443"),
            ("QUERY_STRING", "id=7"),
            ("HTTP_COOKIE", "session=abc; theme=dark"),
            ("CONTENT_TYPE", "application/x-www-form-urlencoded"),
            ("body", "name=O'Brien!&text=a\r\nb"),
        ] {
            assert_eq!(seen[name], value, "{name}: {text}");
        }
    }
    let seen = shell.seen(&["https://ada:p%40ss@shop.example:443/a", "-s", "-k"]);
    assert_eq!(seen["HTTP_HOST"], "shop.example");
    assert_eq!(
        (&seen["SERVER_NAME"], &seen["SERVER_PORT"]),
        (&"shop.example".into(), &"443".into())
    );
    assert_eq!(seen["wsgi.url_scheme"], "https");
    assert_eq!(seen["HTTP_AUTHORIZATION"], "Basic YWRhOnBAc3M=");
}
