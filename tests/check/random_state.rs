//! Random number generators that repeat in each process that is forked.

use crate::{
    check::{CheckSite, HELLO, line},
    support::probe::dedent,
};

#[test]
fn generators_in_globals_are_named_and_no_others() {
    let site = CheckSite::new();
    let code = "
        import random, secrets, tempfile
        from random import choice
        tempfile.mktemp()
        fresh = random.SystemRandom()
        def draw():
            return random.Random()
        ";
    let text = site.check_code(&format!("{}\n{}", dedent(code), dedent(HELLO))).text();
    assert!(!text.contains("\nrandom "), "{text}");
    let code = "
        import random
        dice = random.Random(1)
        class Game:
            deck = random.Random()
            def __init__(self):
                self.own = random.Random()
        game = Game()
        ";
    let ended = site.check_code(&format!("{}\n{}", dedent(code), dedent(HELLO)));
    let text = ended.text();
    assert!(
        line(&text, "random ")
            .starts_with("module `app.wsgi` holds a `random.Random` as `Game.deck`"),
        "{text}"
    );
    for name in ["dice", "game.own"] {
        assert!(
            text.contains(&format!("module `app.wsgi` holds a `random.Random` as `{name}`\n")),
            "{text}"
        );
    }
    assert!(text.contains("os.register_at_fork(after_in_child="), "{text}");
    assert_eq!(ended.code(), Some(0), "{text}");
}

#[test]
fn an_object_that_sets_globals_when_it_is_searched_does_no_harm() {
    let site = CheckSite::new();
    let code = "
        import random
        class Lazy:
            @property
            def __dict__(self):
                globals().update({'found%d' % number: number for number in range(100)})
                return {'dice': random.Random()}
        lazy = Lazy()
        ";
    let ended = site.check_code(&format!("{}\n{}", dedent(code), dedent(HELLO)));
    let text = ended.text();
    assert!(text.contains("holds a `random.Random` as `lazy.dice`"), "{text}");
    assert_eq!(ended.code(), Some(0), "{text}");
}
