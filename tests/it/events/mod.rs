//! The log over HTTP, page by page and as a stream, and what is proved with it outside.

mod branches;
mod denials;
mod origin;
mod outside;
mod pages;
mod refusals;
mod schemas;
mod streams;
mod wire;
