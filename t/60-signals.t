#!/usr/bin/perl
# Guards: TERM and INT end each of the five programs with status 0 and leave nothing, HUP reloads and touches nothing.
use strict;
use warnings;
use File::Find ();
use HyperMesh;
use HyperTest;
use IO::Socket::INET;
use Test::More;

my $m = mesh(hyper => { map { $_ => "reconnect_max = 1;\n" } qw(hd-1 hd-2) });
my @names = qw(hd-1 hd-2 ph proxy sd);
my %ports = (sd => ['sd'], proxy => [qw(proxy endpoint)], map { $_ => [ "$_.rpc", "$_.grpc" ] } qw(ph hd-1 hd-2));

# What is there beside logs and settings: all files of the mesh.
sub files {
	my @found;
	File::Find::find({ wanted => sub { push @found, $File::Find::name if !-d }, no_chdir => 1 }, $m->{dir});
	return [ sort @found ];
}
sub is_open { return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $_[0], Timeout => 5) }

is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'the path works');
my $pair = $m->{proxy}->count_log(qr/ pair session=/);
for my $name (@names) {
	my $d = $m->{$name};
	$d->signal('HUP');
	ok($d->wait_log(qr/ info reloaded changed=0 needs_restart=0 /, 5), "$name: HUP is answered in the log");
	ok($d->is_running, "$name: and survived");
}
is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'calls go on');
is($m->{proxy}->count_log(qr/ pair session=/), $pair, 'over the same pair');

my $files;
for my $signal (qw(TERM INT)) {
	# Not only idle: a pair, a pool and a standing stream are there.
	is($m->ping->{result}{serverInfo}{name}, 'hd-2', "$signal: something to stop");
	my @workers = $m->{proxy}->children;
	is(scalar @workers, 2, "$signal: two workers");
	for my $name (@names) {
		my $d = $m->{$name};
		$d->signal($signal);
		is($d->wait_exit(10), 0, "$name: $signal ends it with status 0") or diag($d->log_tail);
		is(scalar(grep { is_open($m->{port}{$_}) } @{ $ports{$name} }), 0, "$name: nobody listens any more");
	}
	is(scalar(grep { fds_of($_) >= 0 } @workers), 0, "$signal: no worker is left");
	my $now = files();
	$files //= $now;
	is_deeply($now, $files, "$signal: no file is left that was not there before");
	is_deeply([ grep { /-wal$|-shm$|\.sock$|\.pid$|\.tmp/ } @$now ], [], "$signal: nor any that belongs to a running program only");
	next if $signal eq 'INT';
	# The same ports at once: nothing holds them.
	$m->start_one($_) for qw(sd proxy ph hd-2 hd-1);
	ok($m->{ph}->wait_log(qr/ registered .*operator=hd-2/, 20), 'started again at the same ports');
}
hyper_done();
