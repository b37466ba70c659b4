#!/usr/bin/perl
# Guards: each failure between hd-1 and hd-2 ends in time, in the protocol's words, and names the step that failed.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use Test::More;
use Time::HiRes qw(time);

my $m = mesh(directory => 'json', hyper => { 'hd-1' => "call_timeout = 4;\n", 'hd-2' => "reconnect_max = 1;\n" });

# 4.2, through a real server
my @cases = (
	[ 'no operator', 'ping', 1, 'error parsing address: invalid ID format' ],
	[ 'no method', 'hd-2.', 1, 'error parsing address: invalid ID format' ],
	[ 'unknown operator', 'nope._ping', 1, "error retrieving directory entry for recipient 'nope': no directory entry found" ],
	[ 'no such grpc_server', 'sd-1._ping', -32005, 'sd-1 has no standing connection to hd-1: no channel can deliver this request' ],
);
for my $case (@cases) {
	my ($name, $method, $code, $message) = @$case;
	my $a = $m->call($method);
	is($a->{error}{message}, $message, "$name: message");
	is($a->{error}{code}, $code, "$name: code");
	is($a->{http}, 400, "$name: HTTP 400");
	is(ref $a->{error}{data}, 'HASH', "$name: data is an object");
}
my $a = $m->call('hd-2._ping', {}, id => 'a)b');
is($a->{error}{message}, 'error parsing address: invalid ID format', 'an id that would end the address early');
is($a->{id}, 'a)b', 'comes back as it was');
# The id is made of the method and the user's id: none of his may turn it into another address.
for my $id ('hd-2._connectionRequest(1', 'x.y(z', 'hd-1._connections(1', '.a(b', 'hd-2._ping(1') {
	$a = $m->call('hd-2._ping', {}, id => $id);
	is($a->{error}{code}, -32600, "id $id: refused");
	like($a->{error}{message}, qr/^invalid request: the id names .* and the method is 'hd-2\._ping'$/, "id $id: and why");
	is($a->{id}, $id, "id $id: comes back as it was");
}
for my $id (7, 'n:7', 'nn:7', '', 'x' x 1000) {
	$a = $m->call('hd-2._ping', {}, id => $id);
	is($a->{id}, $id, 'id ' . substr($id, 0, 10) . ' comes back') if $id ne '';
	like($a->{id}, qr/^[0-9a-f]{32}$/, 'an empty id: one is made') if $id eq '';
	ok($a->{result}, 'with the result') or diag json_text($a);
}

# From here on no connection is kept: each step fails once.
sub failing {
	my ($name) = @_;
	my $begin = time;
	my $answer = $m->ping;
	cmp_ok(time - $begin, '<', 4 * HyperTest::slow_factor() + 1, "$name: within the deadline");
	is($answer->{http}, 400, "$name: HTTP 400");
	return $answer->{error} // {};
}
sub restart_a { $m->{'hd-1'}->stop; $m->start_one('hd-1') }

$m->{'hd-2'}->stop;
restart_a();
ok(wait_until(sub { $m->{ph}->count_log(qr/ unregistered operator=hd-2/) }, 5), 'hd-2 is gone');
my $e = failing('B away');
is($e->{code}, -32005, 'B away: code');
is($e->{data}{reason}, 'not_connected', 'B away: reason');
is($e->{data}{step}, 'told', 'B away: step');
like($e->{message}, qr/public-proxy-1\.ga could not connect hd-1 to hd-2 \(step told\): .*hd-2 has no standing connection/, 'B away: message');
$m->start_one('hd-2');
ok(wait_until(sub { $m->ping->{result} }, 10), 'B is back: it works again');

# P goes while hd-1 and hd-2 have a connection through it: that ends, and a new one cannot be had.
my $lost = $m->{'hd-1'}->count_log(qr/ connection_lost .*operator=hd-2/);
$m->{proxy}->stop;
ok(wait_until(sub { $m->{'hd-1'}->count_log(qr/ connection_lost .*operator=hd-2/) > $lost }, 5), 'P stops: its pair ends');
$e = failing('P gone in the middle');
is("$e->{data}{step} $e->{data}{reason}", 'asked unreachable', 'P gone in the middle: step and reason');
restart_a();
$e = failing('P stopped');
is($e->{code}, 500, 'P stopped: code');
is($e->{data}{reason}, 'unreachable', 'P stopped: reason');
is($e->{data}{step}, 'asked', 'P stopped: step');
like($e->{message}, qr/^Channel 2 encountered an error delivering the message: public-proxy-1\.ga could not connect hd-1 to hd-2 \(step asked\): .*localhost:$m->{port}{proxy}/, 'P stopped: message names its address');

$m->{ph}->stop;
restart_a();
$e = failing('P-hyper stopped');
is($e->{data}{reason}, 'unreachable', 'P-hyper stopped: reason');
is($e->{data}{step}, 'asked', 'P-hyper stopped: step');
like($e->{message}, qr/hd-1 could not reach public-proxy-1\.ga: .*localhost:$m->{port}{'ph.grpc'}: Connection refused/, 'P-hyper stopped: message');

$m->start_one('ph');
$m->start_one('proxy');
ok(wait_until(sub { $m->ping->{result} }, 10), 'all back: it works again');

# A silent endpoint: B and A connect, nobody pairs them.
$m->{proxy}->stop;
my $hole = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $m->{port}{proxy}, Listen => 5, ReuseAddr => 1) or die "listen: $!";
restart_a();
$e = failing('P accepts and says nothing');
ok($e->{data}{reason} eq 'deadline' || $e->{data}{reason} eq 'unreachable', "P accepts and says nothing: reason $e->{data}{reason}");
is($e->{data}{step}, 'asked', 'P accepts and says nothing: step');
like($e->{message}, qr/public-proxy-1\.ga could not connect hd-1 to hd-2 \(step asked\): .*in time/, 'P accepts and says nothing: message');
close $hole;
hyper_done();
