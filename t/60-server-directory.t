#!/usr/bin/perl
# Guards: calls go on while sd is away, a server restarted then knows what it knew, and decisions stop when that is too old.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use Test::More;

my $m = mesh(plain => 1);
is($m->ping->{result}{serverInfo}{name}, 'hd-2', "the path works with the proxy's JSON-RPC on plain HTTP");
my $a = $m->call('hd-1._directory', { operator => 'hd-2' });
is_deeply([ map { $_->{name} } @{ $a->{result}{entries} } ], ['hd-2'], '_directory: by operator');
$a = $m->call('hd-1._directory', { group => 'health-departments' });
is_deeply([ sort map { $_->{name} } @{ $a->{result}{entries} } ], [ 'hd-1', 'hd-2' ], '_directory: by group');
$a = $m->call('hd-1._directory', { channels => ['grpc_server'] });
is_deeply([ sort map { $_->{name} } @{ $a->{result}{entries} } ], [ 'hd-1', 'hd-2', 'public-proxy-1.ga' ], '_directory: by channel');
is($m->call('hd-1._directory', { channels => 'grpc_server' })->{error}{code}, -32602, '_directory: a filter of the wrong type');

$m->{sd}->stop;
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'sd is away: calls go on');
$m->{'hd-1'}->stop;
$m->start_one('hd-1');
ok(wait_until(sub { $m->ping->{result} }, 10), 'a server that starts now serves from what it kept');
is($m->call('nope._ping')->{error}{message}, "error retrieving directory entry for recipient 'nope': no directory entry found",
	'an unknown operator is still answered at once');

$m->{'hd-1'}->stop;
write_file("$m->{dir}/hd-1/002.cfg", "directory = { settings = { max_stale = 1; }; };\n");
$m->start_one('hd-1');
$a = wait_until(sub { my $r = $m->ping; $r->{error} && $r->{error}{code} == -32007 && $r }, 10);
ok($a, 'older than max_stale: nothing is decided on it');
is($a->{error}{data}{reason}, 'stale', 'and it says so');
$m->start_one('sd');
ok(wait_until(sub { $m->ping->{result} }, 15), 'sd is back: so are we');
hyper_done();
