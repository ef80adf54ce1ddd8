//! The `detector` program. All of it is in the library; see [`detector::cli`].

fn main() -> std::process::ExitCode {
    detector::cli::main()
}
