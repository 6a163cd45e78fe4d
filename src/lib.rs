//! turnd
