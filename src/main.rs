//! turnd
fn main() {}
