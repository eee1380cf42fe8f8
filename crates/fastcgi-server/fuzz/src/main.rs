//! Gives standard input to one of the functions in `tests/wire/targets.rs`, which must hold for all
//! bytes there are.
//!
//!     cargo build --release
//!     target/release/fastcgi-server-fuzz server < seeds/server/everything
//!     SECONDS_EACH=600 ./run server
//!
//! The second builds it for AFL++ and runs that. Needs no nightly compiler. The tests of the crate
//! run the same functions over many generated inputs.

use std::{env, io::Read as _, process::ExitCode};

#[path = "../../tests/wire/drive.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod drive;
#[path = "../../tests/wire/model.rs"]
mod model;
#[path = "../../tests/wire/targets.rs"]
mod targets;

fn main() -> ExitCode {
    let name = env::args().nth(1).unwrap_or_default();
    let Some((_, target)) = targets::ALL.iter().find(|(known, _)| *known == name) else {
        let known = targets::ALL.map(|(known, _)| known).join(", ");
        eprintln!("`{name}` is no target; there are {known}");
        return ExitCode::from(2);
    };
    let mut bytes = Vec::new();
    if let Err(error) = std::io::stdin().read_to_end(&mut bytes) {
        eprintln!("cannot read standard input: {error}");
        return ExitCode::FAILURE;
    }
    target(&bytes);
    ExitCode::SUCCESS
}
