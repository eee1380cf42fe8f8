//! matplotlib: plots of several requests, with a cache and a scratch directory that are made at
//! import.

use crate::{
    packages::{in_every_mode, set_up},
    support::web_servers::{HttpClient, WebServer},
};

in_every_mode! {
    plots_are_those_of_a_plain_process
}

const PLOT: &str = r#"
import runpy, sys
sys.stdout.buffer.write(runpy.run_path("cgi-bin/matplotlib.wsgi")["plot"]())
"#;

fn plots_are_those_of_a_plain_process(web_server: &mut dyn WebServer) {
    let expected = set_up(web_server, "python", &["-c", PLOT]);
    assert!(expected.starts_with(b"\x89PNG"), "{}", String::from_utf8_lossy(&expected));
    for turn in 1..=3 {
        let image = HttpClient::get(web_server.script("matplotlib.wsgi/")).run().expect(200);
        assert_eq!(image.header("content-type"), "image/png");
        assert!(
            image.body == expected,
            "plot {turn} is another one: {} bytes, not {}",
            image.body.len(),
            expected.len()
        );
        // The cache is that of the import.
        let fonts = image.header("x-fonts");
        assert!(fonts.starts_with("DejaVuSans.ttf ") && fonts.contains("fontlist-"), "{fonts}");
    }
}
