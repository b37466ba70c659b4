#!/usr/bin/perl
# `hyper call` and `hyper ping` go through the running server, show the eight steps, and exit 0, 1, 64 or 69.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use Test::More;

my $mesh = mesh();
my %env = (env => { HYPER_SETTINGS => "$mesh->{dir}/hd-1" });
my @steps = qw(asked issued told parked confirmed answered paired secured);

my ($code, $out, $err) = run_program([ program('hyper'), 'ping', 'hd-2' ], %env);
is($code, 0, 'ping exits 0') or diag $err;
like($out, qr/^hd-2 answered in [\d.]+ ms$/m, 'says how long it took');
like($out, qr/^connection brokered via public-proxy-1\.ga session [0-9a-f]{12}$/m, 'names the way and the session');
for my $n (1 .. 8) {
	my $word = $steps[ $n - 1 ];
	like($out, qr/^  $n $word +[\d.]+ ms/m, "shows the time of step $n, $word");
}

($code, $out, $err) = run_program([ program('hyper'), 'ping', '--json', 'hd-2' ], %env);
is($code, 0, 'ping --json exits 0');
my $report = json_value($out);
is($report->{operator}, 'hd-2', 'names the operator');
my $session = $report->{connection}{session};
like($session, qr/^[0-9a-f]{12}$/, 'and the session');
my $timeline = $report->{connection}{timeline};
# Steps 4 and 5 are in no fixed order with their neighbours. Time starts when hd-1 asks.
cmp_ok($timeline->{asked}, '>=', 0, 'time starts when hd-1 asks');
cmp_ok($timeline->{secured}, '>=', $timeline->{$_}, "secured after $_") for @steps[ 0 .. 6 ];
cmp_ok($timeline->{issued}, '<=', $timeline->{confirmed}, 'the token is issued before B confirms');
for my $daemon (qw(proxy hd-1 hd-2)) {
	ok($mesh->{$daemon}->count_log(qr/session=$session/), "the session is in $daemon\'s log");
}

($code, $out, $err) = run_program([ program('hyper'), 'call', 'hd-2._ping', '{"a":[1,2.5,null]}' ], %env);
is($code, 0, 'call exits 0') or diag $err;
is_deeply(json_value($out)->{params}{a}, [ 1, 2.5, undef ], 'parameters arrive');

($code, $out, $err) = run_program([ program('hyper'), 'call', 'nope._ping' ], %env);
is($code, 1, 'an error answer exits 1');
like($err, qr/no directory entry found/, 'and is shown');
is($out, '', 'with nothing on stdout');

($code, $out, $err) = run_program([ program('hyper'), 'call', 'hd-2._ping', '[1]' ], %env);
is($code, 64, 'parameters that are no object: 64');
($code, $out, $err) = run_program([ program('hyper'), 'ping', '--timeout', 'soon', 'hd-2' ], %env);
is($code, 64, 'a timeout that is no number: 64');

$mesh->{'hd-1'}->stop;
is($mesh->{proxy}->wait_log(qr/ ended .*session=$session .*reason=(\w+)/), 'closed', 'hd-1 stops: the pair ends cleanly');
($code, $out, $err) = run_program([ program('hyper'), 'ping', 'hd-2' ], %env);
is($code, 69, 'no server: 69');
like($err, qr/localhost:$mesh->{port}{'hd-1.rpc'}/, 'and says where it should be');
hyper_done();
