#![allow(missing_docs)]
mod logging;
