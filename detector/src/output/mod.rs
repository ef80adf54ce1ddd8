//! What findings look like outside: JSON for programs, a line for people. Both are safe to look at in a terminal.

pub(crate) mod advice;
pub(crate) mod columns;
pub(crate) mod drift;
pub(crate) mod escape;
mod fit;
pub mod formats;
pub(crate) mod health;
pub mod json;
pub mod live;
pub(crate) mod openmetrics;
pub mod screen;
pub(crate) mod template;
pub mod terminal;
pub mod times;
pub(crate) mod top;
