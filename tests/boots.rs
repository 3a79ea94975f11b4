//! Machines that were booted in a way of their own: tests/kernels.sh boots them.

mod common;

mod small {
    #[test]
    #[ignore = "for tests/kernels.sh"]
    fn nothing_yet() {}
}
