#!/usr/bin/perl
# Guards: our A and our B meet through a proxy of the reference, and our A meets a B of the reference; connections that it ends are made anew.
use strict;
use warnings;
use GrpcTest;
use HyperMesh;
use HyperTest;
use Test::More;

need_python();
my $m = mesh(directory => 'json', start => 0);
my ($proxy, $n) = (undef, 0);

sub start_proxy { return $proxy = start('proxy' . ++$n, [ python('reference_proxy.py'), certs(), 'public-proxy-1.ga', $m->{port}{'ph.grpc'}, @_ ]) }
sub said { my ($key) = @_; return grep { exists $_->{$key} } lines_of($proxy->log_text) }
sub brokered { my ($c) = grep { $_->{kind} eq 'brokered' } @{ $m->call('hd-1._connections')->{result}{connections} }; return $c }

# --- P is the reference's, A and B are ours ---
start_proxy();
$m->start_one('hd-2');
$m->start_one('hd-1');
ok(wait_until(sub { grep { $_->{announced}{name} eq 'hd-2' } said('announced') }), 'hd-2 has announced itself');
my $a = $m->ping(id => 'first');
is($a->{result}{serverInfo}{name}, 'hd-2', 'hd-2 answers through it') or diag json_text($a);
is($a->{result}{params}{_client}{name}, 'hd-1', 'and knows who is calling');

my ($asked) = said('call');
is($asked->{call}{method}, 'public-proxy-1.ga.requestConnection', 'what P was asked: the method');
like($asked->{call}{id}, qr/^public-proxy-1\.ga\.requestConnection\([0-9a-f]{16}\)$/, 'the id');
is($asked->{call}{clientName}, 'hd-1', 'clientName');
my $from = delete $asked->{call}{params}{_client};
is_deeply([ $from->{name}, $from->{entry}{groups} ], [ 'hd-1', ['health-departments'] ], 'who asks, with its entry (7.1, row 2)');
is_deeply($asked->{call}{params}, { to => 'hd-2', channel => 'grpc_server' }, 'the parameters, and nothing of ours in them');
my ($confirmed) = said('confirmed');
ok($confirmed->{same_id}, 'hd-2 confirms under the id it was asked with');
is_deeply($confirmed->{confirmed}{result} // {}, {}, 'with an empty result');
is_deeply([ map { $_->{connector} } said('connector') ], [ 32, 32 ], 'the 32 bytes come in one piece from both');
my $c = brokered();
like($c->{session}, qr/^[0-9a-f]{12}$/, 'the session id is made from the token');
ok(defined $c->{timeline}{$_}, "the timeline has what A knows: $_") for qw(answered parked paired secured);

$m->ping(id => $_) for 1 .. 5;
is(scalar said('call'), 1, 'five more calls need no further brokering');

# --- B is the reference's as well ---
$m->{'hd-2'}->stop;
$proxy->stop;
my $b_port = free_port();
my $b = start('b', [ python('grpc_server.py'), certs(), 'hd-2', $b_port ], env => { T_IDLE_MS => 1000 });
start_proxy($b_port);
$a = $m->call('hd-2._ping', { x => 1 });
is($a->{result}{version}, 'python', 'a B of the reference answers') or diag json_text($a);
my ($call) = grep { $_->{call} } lines_of($b->log_text);
is((delete $call->{call}{params}{_client})->{name}, 'hd-1', 'it is told who asks');
is_deeply($call->{call}{params}, { x => 1 }, 'it is given the parameters');
is($call->{call}{clientName}, 'hd-1', 'and our name');

# It closes connections that are idle, the reference after 60 s.
ok(wait_until(sub { !brokered() }), 'its end of the idle connection is seen');
$a = $m->call('hd-2._ping', { x => 2 });
is($a->{result}{params}{x}, 2, 'the next call is brokered anew, nobody notices') or diag json_text($a);
is(scalar said('call'), 2, 'two connections in all');
is($m->{'hd-1'}->stop, 0, 'hd-1 stops');
$b->stop;
hyper_done();
