# GrpcTest - starts the Python programs of t/py and reads their JSON lines
package GrpcTest;
use strict;
use warnings;
use Exporter 'import';
use HyperTest;
use Test::More;

our @EXPORT = qw(python need_python lines_of py_client our_client);

# Debian's Python, which is where python3-grpcio installs to.
my $python = $ENV{T_PYTHON} // '/usr/bin/python3';

sub python { return ($python, '-B', source() . "/t/py/$_[0]") }

sub need_python {
	plan skip_all => "python3-grpcio and python3-protobuf are needed: apt-get install python3-grpcio python3-protobuf"
	    if system("$python -c 'import grpc, google.protobuf' 2>/dev/null") != 0;
}

# Text of JSON lines -> list of values
sub lines_of { return map { json_value($_) } grep { /^\{/ } split /\n/, $_[0] }

# Runs grpc_client.py; a hash of its lines by their case.
sub py_client {
	my ($name, $port, $peer, @verb) = @_;
	my ($status, $out, $err) = run_program([ python('grpc_client.py'), certs(), $name, "localhost:$port", $peer, @verb ]);
	diag($err) if $status != 0;
	is($status, 0, "the Python client ran: @verb[0 .. 0]");
	return map { $_->{case} => $_ } lines_of($out);
}

# Runs grpc_call; the list of its lines.
sub our_client {
	my ($name, $port, $peer, @verb) = @_;
	my ($status, $out, $err) =
	    run_program([ build() . '/t/unit/grpc_call', certs(), $name, "localhost:$port", $peer, @verb ]);
	diag($err) if $err =~ /Sanitizer|runtime error| bug /;
	unlike($err, qr/Sanitizer|runtime error| bug /, "no sanitizer line, no bug line: @verb[0 .. 0]");
	return lines_of($out);
}

1;
