#!/usr/bin/perl
# Guards: when the master is killed, workers keep their pairs and close the listener, so a new master serves at the same address at once.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $endpoint = '127.0.0.1:' . free_port();
my $p = proxy(workers => 2, endpoint => $endpoint);
my ($a, $b, $session) = $p->pair(workers => [ 0, 1 ]);
my ($token) = $p->broker;
my $parked = $p->come($token);
my @old = $p->worker_pids;
$p->{d}->signal('KILL');
is($p->{d}->wait_exit, 128 + 9, 'the master is dead');
isnt((read_to_end($parked, 5))[1], 'timeout', 'who was parked is let go');
joined($a, $b, 'the pair lives');
# at() needs no master: the idle worker leaves by itself
ok(wait_until(sub { fds_of($old[0]) < 0 }), 'the worker without a pair is gone');

my $next = proxy(workers => 2, endpoint => $endpoint);
is($next->{port}, $p->{port}, 'a new master listens at the same address');
my ($a2, $b2) = $next->pair;
joined($a2, $b2, 'and pairs');
joined($a, $b, 'beside the old pair');
send_all($a, 'last');
close $a;
is((read_to_end($b))[0], 'last', 'which ends when its peers do');
close $b;
ok(wait_until(sub { fds_of($old[1]) < 0 }), 'then the last old worker leaves');
close $_ for $a2, $b2;
is($next->{d}->stop, 0, 'the new master stops cleanly');
hyper_done();
