//! PEP 3333 in every mode: what comes out must not depend on how an application is run.

mod authorizer;
mod lints;
mod model;
mod random_app;
mod streams;
