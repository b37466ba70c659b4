#!/usr/bin/perl
# Guards: who a caller is follows from its certificate and the directory alone, and what it may is asked for what its id names.
use strict;
use warnings;
use GrpcTest;
use HyperMesh;
use HyperTest;
use Test::More;

need_python();
# hd-2 waits long for the proxy's hyper: no longer than a second between two attempts
my $m = mesh(directory => 'json', start => 0, hyper => { 'hd-2' => "reconnect_max = 1;\n" });
$m->start_one('hd-2');
my $port = $m->{port}{'hd-2.grpc'};

# One call with the certificate of `cert` as `client`: the line of grpc_client.py.
sub call {
	my ($cert, $client, $method, $id, $params) = @_;
	my %l = py_client($cert, $port, 'hd-2', 'one', $method, json_text($params // {}), $id // "$method(1)", $client);
	return $l{$method} // $l{ready};
}

my $r = call('hd-1', 'hd-1', 'hd-2._ping', undef, { a => 1, _client => { name => 'public-proxy-1.ga', entry => {} } });
is($r->{ok}{id}, 'hd-2._ping(1)', 'a call: the id comes back');
is($r->{ok}{result}{params}{_client}{name}, 'hd-1', 'a forged _client is replaced');
is($r->{ok}{result}{params}{_client}{entry}{name}, 'hd-1', 'with the entry of the directory');
is($r->{ok}{result}{params}{a}, 1, 'the other parameters stay');
is($r->{ok}{result}{serverInfo}{name}, 'hd-2', 'the answer is hd-2');
$r = call('hd-1', '', 'hd-2._ping');
is($r->{ok}{result}{params}{_client}{name}, 'hd-1', 'an empty clientName: the first name of the certificate');

# case, certificate, clientName, method, id, status
my @status = (
	[ 'the name of another operator', 'hd-1', 'hd-2', 'hd-2._ping', undef, 'no matching client' ],
	[ 'a name that nobody has', 'hd-1', 'nope', 'hd-2._ping', undef, 'no matching client' ],
	[ 'an unknown recipient', 'hd-1', 'hd-1', 'nope._ping', undef,
		"error handling gRPC request: error retrieving directory entry for recipient 'nope': no directory entry found" ],
	[ 'no address', 'hd-1', 'hd-1', 'hd-2._ping', 'whatever', 'error handling gRPC request: error parsing address: invalid ID format' ],
);
for my $case (@status) {
	my ($name, $cert, $client, $method, $id, $text) = @$case;
	is_deeply(call($cert, $client, $method, $id)->{status}, [ 2, $text ], "$name: UNKNOWN with the words of the protocol");
}

# case, certificate, method, id, code, message
my @error = (
	[ 'a pinned operator without rights', 'demo-app', 'hd-2._ping', undef, 403, "Permission denied for method '_ping' and client 'demo-app'" ],
	[ 'a method of others', 'hd-1', 'hd-2._connectionRequest', undef, 403, "Permission denied for method '_connectionRequest' and client 'hd-1'" ],
	[ 'permitted method, forbidden id', 'hd-1', 'hd-2._ping', 'hd-2._connectionRequest(1)', -32600,
		"invalid request: the id names hd-2._connectionRequest and the method is 'hd-2._ping'" ],
	[ 'forbidden method, permitted id', 'hd-1', 'hd-2._connectionRequest', 'hd-2._ping(1)', -32600,
		"invalid request: the id names hd-2._ping and the method is 'hd-2._connectionRequest'" ],
	[ 'another operator in the id', 'hd-1', 'hd-2._ping', 'public-proxy-1.ga._ping(1)', -32600,
		"invalid request: the id names public-proxy-1.ga._ping and the method is 'hd-2._ping'" ],
	[ 'a request for somebody else', 'hd-1', 'public-proxy-1.ga._ping', undef, 403, "Permission denied for method '_ping' and client 'hd-1'" ],
	[ 'what only the own operator may ask', 'hd-1', 'hd-2._connections', undef, 403, "Permission denied for method '_connections' and client 'hd-1'" ],
);
for my $case (@error) {
	my ($name, $cert, $method, $id, $code, $message) = @$case;
	my $e = call($cert, $cert, $method, $id)->{ok}{error};
	is_deeply([ $e->{code}, $e->{message} ], [ $code, $message ], "$name: refused");
}
isnt($m->{'hd-2'}->count_log(qr/ grpc_accepted .*operator=demo-app/), 0, 'demo-app was let in, for its entry pins its certificate');

# The directory changes while a connection is open: hd-1's certificate is no longer pinned.
$m->start_one($_) for qw(proxy ph hd-1);
ok($m->{ph}->wait_log(qr/ registered operator=hd-2/, 10), 'hd-2 has its standing stream');
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'hd-1 has a connection to hd-2');
my $file = "$m->{dir}/directory/002_certificates.json";
my $records = json_value(my $before = read_file($file));
for my $r (@{ $records->{records} }) {
	$_->{fingerprint} =~ tr/0-9a-f/1-9a-f0/ for $r->{name} eq 'hd-1' ? @{ $r->{data} } : ();
}
write_file($file, json_text($records));
my $e = wait_until(sub { my $r = $m->ping; $r->{error} && $r->{error}{message} =~ /no matching client/ && $r->{error} }, 15);
ok($e, 'a certificate that left the directory calls no more, also on an open connection');
write_file($file, $before);
ok(wait_until(sub { $m->ping->{result} }, 15), 'until it is back');

# A certificate of the same CA that the directory does not pin.
my ($status, $out) = run_program([ python('grpc_client.py'), certs(), 'hd-1-alt', "localhost:$port", 'hd-2', 'one', 'hd-2._ping' ]);
unlike($out, qr/"ok": \{/, 'hd-1-alt gets no answer');
ok($m->{'hd-2'}->wait_log(qr/ grpc_refused peer=hd-1 .*no name matched/), 'and the log says why');

is(call('hd-1', 'hd-1', 'hd-2._ping')->{ok}{id}, 'hd-2._ping(1)', 'hd-2 serves on');
ok(wait_until(sub { !$m->{'hd-2'}->log_text || $m->call('hd-2._connections', {}, at => 'hd-2')->{result}{connections}
	&& !grep { $_->{kind} eq 'accepted' && !$_->{via} } @{ $m->call('hd-2._connections', {}, at => 'hd-2')->{result}{connections} } }, 10), 'and keeps none of these connections');
$e = $m->call('hd-2._ping', {}, at => 'hd-2');
is($e->{result}{serverInfo}{name}, 'hd-2', 'its own operator asks over JSON-RPC');
$e = rpc("https://hd-2:$m->{port}{'hd-2.rpc'}/jsonrpc", 'hd-2._ping', {}, cert => 'hd-1');
is($e->{http}, 403, 'another operator of the same CA does not');
is($e->{result}, undef, 'and gets no result');
hyper_done();
