//! The `detector` program. Its code is in the library; see [`detector::cli`].

fn main() -> std::process::ExitCode {
    detector::cli::main()
}
