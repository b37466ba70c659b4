#!/usr/bin/perl
# Guards: one grep for a session id over the logs of A's hyper, the proxy's master and workers, and B's hyper tells a brokering from its beginning to its one end; port checks leave no line at info.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use IO::Socket ();
use Test::More;

my $mesh = mesh();
my %env = (env => { HYPER_SETTINGS => "$mesh->{dir}/hd-1" });

# What each program says of a session at info or worse: [ program, event, step or failed step, reason ] in order.
sub story {
	my ($session) = @_;
	my %of;
	for my $daemon (qw(hd-1 proxy hd-2)) {
		for (grep { / (?:info|warn|error) .*session=$session/ } split /\n/, $mesh->{$daemon}->log_text) {
			my ($program, $event) = / ([\w-]+)\[\d+\] \w+ (\w+) / or next;
			my $who = $daemon ne 'proxy' ? $daemon : $program =~ /worker/ ? 'worker' : 'master';
			my $step = / (?:step|failed)=(\w+)/ ? ":$1" : '';
			my $reason = / reason=(\w+)/ ? "=$1" : '';
			push @{ $of{$who} }, "$event$step$reason";
		}
	}
	return \%of;
}

sub has { my ($of, $who, $what) = @_; return scalar grep { $_ eq $what } @{ $of->{$who} // [] } }

# The ends, at each program.
sub ends { my ($of, $who) = @_; return join ' ', sort map { /=(\w+)/ ? $1 : () } @{ $of->{$who} // [] } }

my ($code, $out, $err) = run_program([ program('hyper'), 'ping', 'hd-2' ], %env);
is($code, 0, 'a ping') or diag $err;
my ($session) = $out =~ /session ([0-9a-f]{12})/ or BAIL_OUT("no session: $out");
$mesh->{'hd-1'}->stop;
ok(wait_until { my $of = story($session); has($of, 'master', 'ended=closed') && ends($of, 'hd-2') } 10);
my $of = story($session);
for ([ 'hd-1', qw(brokered:answered brokered:secured) ], [ 'master', qw(asked issued told parked confirmed answered paired pair ended=closed) ],
	[ 'worker', qw(arrived parked paired ended=closed) ], [ 'hd-2', qw(brokered:told brokered:confirmed brokered:secured) ]) {
	my ($who, @events) = @$_;
	for (@events) {
		is(has($of, $who, $_), $who eq 'worker' && $_ eq 'arrived' ? 2 : 1, "$who: $_") or diag(explain($of));
	}
}
is(ends($of, $_), 'closed', "one end at $_") for qw(master worker hd-2);
is(ends($of, 'hd-1'), 'stopped', 'and one at A, which was stopped');

# The other ends: each brokering has exactly one, the same words everywhere
$mesh->start_one('hd-1');
sub ping_session {
	my ($code, $out) = run_program([ program('hyper'), 'ping', 'hd-2' ], %env);
	return $code == 0 && $out =~ /session ([0-9a-f]{12})/ ? $1 : undef;
}
sub sessions { my ($daemon) = @_; my %s = map { $_ => 1 } $mesh->{$daemon}->log_text =~ /session=([0-9a-f]{12})/g; return \%s }
my $second = ping_session();
isnt($second, undef, 'brokered again');
$mesh->{'hd-2'}->stop;
ok(wait_until { my $of = story($second); has($of, 'master', 'ended=closed') && ends($of, 'hd-1') } 10);
$of = story($second);
is(ends($of, 'hd-2'), 'stopped', 'B was stopped: says so');
is(ends($of, $_), 'closed', "one end at $_") for qw(master worker hd-1);

my $before = sessions('proxy');
($code, $out, $err) = run_program([ program('hyper'), 'ping', 'hd-2' ], %env);
is($code, 1, 'B is away');
my ($third) = grep { !$before->{$_} } keys %{ sessions('proxy') };
isnt($third, undef, 'that has a session too');
wait_until { ends(story($third), 'master') =~ /not_connected not_connected/ } 10;
$of = story($third);
is(join(' ', grep { /^unpaired/ } @{ $of->{master} }), 'unpaired=not_connected', 'one end at the master') or diag(explain($of));
is(ends($of, 'hd-1'), 'not_connected', 'and the same at A');
$mesh->start_one('hd-2');
$mesh->{ph}->wait_log(qr/ registered .*operator=hd-2/, 20);

# Who only looks whether the ports are open
my @probes = map { [ $_, IO::Socket::IP->new(PeerHost => 'localhost', PeerPort => $mesh->{port}{$_}) ] } qw(endpoint proxy hd-2.rpc hd-2.grpc sd);
ok($_->[1], "$_->[0] is open") for @probes;
close $_->[1] for @probes;
isnt($mesh->{proxy}->wait_log(qr/ debug refused .*reason=probe/), undef, 'the endpoint has seen it');
isnt($mesh->{'hd-2'}->wait_log(qr/ debug grpc_probe/), undef, 'gRPC has seen it');
isnt($mesh->{$_}->wait_log(qr/ debug http .*why="closed before its first byte"/), undef, "JSON-RPC of $_ has seen it") for qw(proxy hd-2 sd);
for my $daemon (qw(proxy hd-2 sd)) {
	my @new = grep { / (?:info|warn) / && /tls|probe|refused|short_token/ } split /\n/, $mesh->{$daemon}->log_text;
	is_deeply(\@new, [], "$daemon: not a line above debug");
}
hyper_done();
