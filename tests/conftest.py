"""What all tests stand on."""

import signal

# Where whoever starts the tests ignores SIGINT (a shell's background job does), their programs would ignore Ctrl-C too.
signal.signal(signal.SIGINT, signal.default_int_handler)
